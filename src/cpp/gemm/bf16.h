// Weights in half the bytes, where each is a bfloat16: a float whose lower 16 bits are zero. One row alone waits for
// weights, so it reads these; the sums have the same bits, as a half that is put back in its place is the weight.
// (float16 would hold three bits more, but takes a conversion of two instructions where a shift or a mask is one.
// Zen 4, a step of LSTM's products, us by float / bfloat16 / float16: H64 1.07 / 0.74 / 1.19, H256 21.1 / 12.5 / 19.3.)
//
// [outputs/L][(depth + 1)/2][gates][L], in each lane the weight of an even step of the depth in the lower half, that of
// the step behind it in the upper.
#pragma once

#include "gemm/blocks.h"
#include "gemm/tile.h"

namespace fastrnn {
namespace {

constexpr uint32_t kUpperHalf = 0xffff0000u;

template <class V>
void pack_bf16_blocks(const float* packed, int gates, int depth, int begin, int end, uint32_t* bf16) {
  constexpr int L = kLanesOf<V>;
  uint32_t* to = bf16 + ptrdiff_t(begin) * pairs_of(depth) * gates * L;
  for (int block = begin; block < end; ++block) {
    const float* const panel = packed + ptrdiff_t(block) * depth * gates * L;
    const auto bits = [&](int k, int g) {
      return uvec<V>(load<V>(panel + (gate_start(g, depth) + ptrdiff_t(k) * group_size(gates, group_of(g))) * L));
    };
    for (int k = 0; k < depth; k += 2) {
      for (int g = 0; g < gates; ++g, to += L) {
        const uvec<V> upper = k + 1 < depth ? bits(k + 1, g) : uvec<V>{};
        store(to, (bits(k, g) >> 16) | (upper & kUpperHalf));
      }
    }
  }
}

// From what pack_gates and pack_rows have left, which are bfloat16.
inline void pack_gates_bf16(const float* packed, int gates, int units, int depth, int part, int parts, uint32_t* bf16) {
  UnitBlocks<float>(units, gates, part, parts).template each_width<kMaxGates>([&](auto vector, int begin, int end) {
    pack_bf16_blocks<decltype(vector)>(packed, gates, depth, begin, end, bf16);
  });
}
inline void pack_rows_bf16(const float* packed, int outputs, int depth, int part, int parts, uint32_t* bf16) {
  const BlockRange blocks(blocks_of<float>(outputs), part, parts);
  pack_bf16_blocks<vec<float>>(packed, 1, depth, blocks.begin, blocks.end, bf16);
}

// acc[0][b][gate] += row[k] * w[b][k][gate][:] for k = 0 .. depth-1 and all gates of G.
template <class G, class V, int Blocks, int A>
FASTRNN_INLINE void multiply_bf16(V (&acc)[1][Blocks][A], const float* row,
                                  const uint32_t* w,  // [Blocks][pairs][gates][L]
                                  int depth) {
  constexpr int L = kLanesOf<V>, gates = G::count;
  const ptrdiff_t block_step = ptrdiff_t(pairs_of(depth)) * gates * L;
  const auto lower = [](uvec<V> pair) { return V(pair << 16); };
  const auto upper = [](uvec<V> pair) { return V(pair & kUpperHalf); };
  // visit(sum, pair) for each gate of each block. A pair is done with before the next is loaded: with 16 registers
  // eight of them do not fit beside eight sums (AVX2 twice as long), and with 32 all at once gains 1 to 3 %.
  const auto each = [&](auto visit) {
#pragma GCC unroll 8
    for (int i = 0; i < Blocks * gates; ++i) {
      visit(acc[0][i / gates][G::index[i % gates]], load<uvec<V>>(w + i / gates * block_step + i % gates * L));
    }
  };
  int k = 0;
  for (; k + 1 < depth; k += 2, w += gates * L) {
    const V x = broadcast<V>(row[k]), next = broadcast<V>(row[k + 1]);
    each([&](V& sum, uvec<V> pair) { sum = fma(next, upper(pair), fma(x, lower(pair), sum)); });
  }
  if (k < depth) each([&, x = broadcast<V>(row[k])](V& sum, uvec<V> pair) { sum = fma(x, lower(pair), sum); });
}

// out = bias + M in, of one row.
struct RowProduct {
  const float* in;       // [depth]
  const uint32_t* bf16;  // [outputs/L][pairs][L]
  const float* bias;     // [padded(outputs)], or null: zero
  float* out;            // [outputs]
  int outputs, depth;
};

template <int Blocks>
FASTRNN_INLINE void row_product_blocks(const RowProduct& a, int& block, int end) {
  constexpr int L = kLanes<float>;
  for (; block + Blocks <= end; block += Blocks) {
    vec<float> acc[1][Blocks][1];
#pragma GCC unroll 8
    for (int b = 0; b < Blocks; ++b) acc[0][b][0] = a.bias ? load(a.bias + (block + b) * L) : vec<float>{};
    multiply_bf16<Gates<0>>(acc, a.in, a.bf16 + ptrdiff_t(block) * pairs_of(a.depth) * L, a.depth);
#pragma GCC unroll 8
    for (int b = 0; b < Blocks; ++b) {
      store_first(a.out + (block + b) * L, acc[0][b][0], lanes_of<float>(a.outputs, block + b));
    }
  }
}

inline void row_product(const RowProduct& a, const BlockRange& blocks) {
  int block = blocks.begin;
  row_product_blocks<8>(a, block, blocks.end);
  row_product_blocks<2>(a, block, blocks.end);
  row_product_blocks<1>(a, block, blocks.end);
}

}  // namespace
}  // namespace fastrnn
