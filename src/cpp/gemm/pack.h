// Weights in the order in which a register tile reads them, [outputs/L][group][depth][gates of the group][L], where
// kSide gates are a group; outputs past the last are zero. The last block of a cell's units may be narrower
// (UnitBlocks).
#pragma once

#include "gemm/blocks.h"
#include "gemm/tile.h"
#include "simd/square.h"

namespace fastrnn {
namespace {

// Asks for as much of `coming` as a square has, in the order of memory: its own rows are too many streams for the
// machine to guess. Packing LSTM on Zen 4, one thread, GB/s of weights, without / so: H256 from the second-level cache
// 32 / 41, the third 22 / 35, memory 10 / 19; H1024, whose rows share a set of the first (load_square), from the third
// 20 / 30, memory 15 / 21. (For columns, which are read along their rows, at most a tenth.)
template <class V>
FASTRNN_INLINE void fetch_square(const element<V>* coming) {
  constexpr int L = kLanesOf<V>, line = 64 / int(sizeof *coming);
#pragma GCC unroll 16
  for (int i = 0; i < L * L; i += line) __builtin_prefetch(coming + i, 0, 2);
}

// From rows that are outputs (torch's weights, forward): packed[j][k][g] = w[g * outputs + j][k].
template <class V, class T>
void pack_row_blocks(const PackTask<T>& a, int begin, int end) {
  constexpr int L = kLanesOf<V>;
  const int gates = a.gates, depth = a.depth;
  const auto rows_of = [&](int block, int g) { return a.w + (ptrdiff_t(g) * a.outputs + block * L) * depth; };
  for (int block = begin; block < end; ++block) {
    const int lanes = lanes_in<V>(a.outputs, block);
    T* const panel = a.packed + ptrdiff_t(block) * depth * gates * L;
    for (int g = 0; g < gates; ++g) {
      const T* const rows = rows_of(block, g);
      const T* const coming = g + 1 < gates ? rows_of(block, g + 1) : rows_of(block + 1, 0);
      T* const to = panel + gate_start(g, depth) * L;
      const ptrdiff_t step = group_size(gates, group_of(g)) * L;
      // Past the caches in whole lines alone: by halves, with another gate's between them (AVX2), LSTM T10 B1 H512
      // takes 1,630 us instead of 600 with packing, and its training 3.3 ms instead of 2.2 (Zen 4, two threads).
      const bool whole_lines = sizeof(V) == FASTRNN_VECTOR_BYTES && (sizeof(V) == 64 || step == L);
      const bool past = a.past_caches && whole_lines;
      int k = 0;
      for (; lanes == L && k + L <= depth; k += L) {
        V columns[L];
        fetch_square<V>(coming + k * L);
        load_square<sizeof(V) == FASTRNN_VECTOR_BYTES>(rows + k, depth, columns);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) store(to + (k + i) * step, columns[i], past);
      }
      for (; k < depth; ++k) {
        V column = {};
        for (int j = 0; j < lanes; ++j) column[j] = rows[ptrdiff_t(j) * depth + k];
        store(to + k * step, column, past);
      }
    }
  }
}

template <class T>
void pack_rows(const PackTask<T>& a) {
  const BlockRange blocks(blocks_of<T>(a.outputs), a.part, a.parts);
  pack_row_blocks<vec<T>>(a, blocks.begin, blocks.end);
  if (a.past_caches) settle();
}

template <class T>
void pack_gates(const PackTask<T>& a) {
  const UnitBlocks<T> units(a.outputs, a.gates, a.part, a.parts);
  units.template each_width<kMaxGates>(
      [&](auto vector, int begin, int end) { pack_row_blocks<decltype(vector)>(a, begin, end); });
  if (a.past_caches) settle();
}

// From rows that are the depth (the transpose, backward): packed[j][k] = w[k][j].
template <class T>
[[gnu::noinline]] void pack_column_blocks(const T* w,  // [depth] rows of `outputs`, step apart
                                          ptrdiff_t step, int outputs, int depth, const BlockRange& blocks, T* packed,
                                          bool past) {
  constexpr int L = kLanes<T>, most = 16;  // rows at once: reads and writes in runs take a quarter less time
  for (int first = 0; first < depth; first += most) {
    const int end = first + most < depth ? first + most : depth;
    for (int block = blocks.begin; block < blocks.end; ++block) {
      const int lanes = lanes_of<T>(outputs, block);
      T* const panel = packed + ptrdiff_t(block) * depth * L;
      for (int k = first; k < end; ++k) {
        store(panel + ptrdiff_t(k) * L, load_first(w + k * step + block * L, lanes), past);
      }
    }
  }
}

template <class T>
void pack_columns(const PackTask<T>& a) {
  const BlockRange blocks(blocks_of<T>(a.outputs), a.part, a.parts);
  pack_column_blocks(a.w, a.outputs, a.outputs, a.depth, blocks, a.packed, a.past_caches);
  if (a.past_caches) settle();
}

}  // namespace
}  // namespace fastrnn
