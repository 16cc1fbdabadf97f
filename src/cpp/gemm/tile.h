// The register tile: R rows x Blocks blocks of units x A accumulators a unit.
//
// In templates here First and Rest are the gates that the first product of a step adds to, and every further one: of a
// cell forward its InputGates and HiddenGates. G is either.
//
// Each output element is one chain of FMAs in the order of k, from the value it starts at; vectors run across outputs,
// and K is never split: this is where the promise of equal bits is kept.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

// Tiles that fill the registers, rows x blocks. Where there are two kinds, row_tiles in tiles.h chooses; fewer rows
// take more blocks (kWidest there).
//
//   gates of the weights   32 registers, 24 sums                    16 registers, 12 sums
//   4 (LSTM)               6 x 1 at once, or 8 x 3 in four passes   4 x 3 in four passes
//   3 (GRU)                8 x 1 at once                            4 x 1 at once
//   1 (RNN, products)      8 x 3 or 6 x 4 at once                   4 x 3 or 3 x 4 at once
//
// Four passes: kPass gates of the first block, of the second, of the third, then the fourth gate of all three.
constexpr bool kFewRegisters = kAccumulators <= 12;
constexpr int kPass = 3, kMaxRows = kAccumulators / kPass, kFullRows = kAccumulators / kMaxGates;
constexpr int kFullBlocks = kAccumulators / kFullRows;  // of one gate, beside kFullRows rows

// Packed weights are [group][depth][gates of the group][L], where a group is the gates that a pass multiplies. With 16
// registers these are three, so that LSTM's tiles can be four rows high. With all four side by side, hence in one pass,
// 8 rows would be tiles of 3, 3 and 2 instead of 4 and 4, and the tile of two takes 32 bytes of weights a cycle, more
// than a second-level cache delivers: LSTM B8 H256 7.3 instead of 6.0 ms (AVX2 on Zen 3). With 32 registers a group is
// all gates: what a pass skips is whole cache lines (AVX-512), or most tiles multiply all gates in any case (NEON).
constexpr int kSide = kFewRegisters ? kPass : kMaxGates;
constexpr int group_of(int g) { return g / kSide; }
constexpr int group_size(int gates, int group) { return gates - group * kSide < kSide ? gates - group * kSide : kSide; }
// Where gate g starts in the panel of a block, in vectors.
FASTRNN_INLINE ptrdiff_t gate_start(int g, int depth) { return ptrdiff_t(group_of(g)) * kSide * depth + g % kSide; }

// The weights that a tile prefetches into the second-level cache, so that the first tile of rows at the next block need
// not wait for the third level or memory: one cache line at each of its steps of k, so of a block as much as is one
// gate's. Emerald Rapids, two threads, time over that without: LSTM B64 H512 0.85, H256 0.90; where weights lie in the
// caches, 1.00.
struct Coming {
  int block, part;  // lines [part * depth, (part + 1) * depth) of the block's
};

// One product of a step: R rows of the left side, and a packed matrix.
template <class T>
struct Operand {
  const T* rows[kMaxRows];  // [R][depth]
  const T* w;               // [Blocks, block_step apart][group][depth][gates of the group][L]
  ptrdiff_t block_step;
  int depth;
  const T* coming;                  // [depth][L] prefetched while the tile multiplies (kAsksForWeights)
  const T* const* ahead = nullptr;  // [aheads] where the caller will read or write after the tile, a vector a block
  int aheads = 0;

  // From `block` on, of a packed matrix.
  FASTRNN_INLINE void weights(const T* packed, ptrdiff_t step, int k, int block, const Coming& next) {
    w = packed + block * step, block_step = step, depth = k;
    coming = packed + next.block * step + next.part * ptrdiff_t(k) * kLanes<T>;
  }
};

// Where the sums of a tile start: at the bias, or at bias + W x, of each row its own, where that was multiplied ahead
// of time. It is read straight into the registers: LSTM with AVX2, B12 H128, 8 % less time than by way of the stack.
template <class T>
struct Start {
  const T* rows[kMaxRows];  // [R][gates of the first operand, pitch apart][Blocks * L]
  const T* rest;            // [A, pitch apart][Blocks * L]: the gates behind those, the same for all rows
  ptrdiff_t pitch;

  constexpr Start(const T* all, const T* rest, ptrdiff_t pitch) : rows(), rest(rest), pitch(pitch) {
    for (const T*& row : rows) row = all;
  }
  // Gate g of row r, where the first operand has `first` gates.
  FASTRNN_INLINE const T* of(int r, int g, int first) const { return (g < first ? rows[r] : rest) + g * pitch; }
};
template <class T>
constexpr T kZeros[8 * kLanes<T>] = {};  // for as many blocks as a tile has
template <class T>
constexpr Start<T> kFromZero{kZeros<T>, nullptr, 0};

// acc[r][b][gate] += rows[r][k] * w[block + b][k][gate][:] for k = 0 .. depth-1 and the gates [Begin, End) of G. A tile
// of several passes calls it for each, with another `part` of what is to be prefetched, counted from op.coming.
template <class G, int Begin = 0, int End = G::count, class T, class V, int R, int Blocks, int A>
FASTRNN_INLINE void multiply(V (&acc)[R][Blocks][A], const Operand<T>& op, int block = 0, int part = 0) {
  constexpr int L = kLanesOf<V>, groups = group_of(G::count - 1) + 1;
  const T* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = op.rows[r];
  const T* w[groups];
  const ptrdiff_t block_step = op.block_step;
  for (int i = 0; i < groups; ++i) w[i] = op.w + block * block_step + gate_start(i * kSide, op.depth) * L;
  const auto weights = [&](int b, int g) { return load<V>(w[group_of(g)] + b * block_step + g % kSide * L); };
  const int depth = op.depth;
  [[maybe_unused]] const T* coming = nullptr;
  if constexpr (kAsksForWeights<V> && R > 1) coming = op.coming + ptrdiff_t(part) * depth * L;
  for (int k = 0; k < depth; ++k) {
    if constexpr (kAsksForWeights<V> && R > 1) {
      __builtin_prefetch(coming, 0, 2);
      coming += L;
    }
    if constexpr (R == 1) {
      const V x = broadcast<V>(rows[0][k]);
#pragma GCC unroll 8
      for (int b = 0; b < Blocks; ++b) {
#pragma GCC unroll 4
        for (int g = Begin; g < End; ++g) acc[0][b][G::index[g]] = fma(x, weights(b, g), acc[0][b][G::index[g]]);
      }
    } else {
      V wk[Blocks][G::count];
#pragma GCC unroll 8
      for (int b = 0; b < Blocks; ++b) {
#pragma GCC unroll 4
        for (int g = Begin; g < End; ++g) wk[b][g] = weights(b, g);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const V x = broadcast<V>(rows[r][k]);
#pragma GCC unroll 8
        for (int b = 0; b < Blocks; ++b) {
#pragma GCC unroll 4
          for (int g = Begin; g < End; ++g) acc[r][b][G::index[g]] = fma(x, wk[b][g], acc[r][b][G::index[g]]);
        }
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < groups; ++i) w[i] += group_size(G::count, i) * L;
  }
}

// Prefetches the vectors of `ahead`, which the caller needs when the tile is done. Where a vector is a cache line, into
// the second-level cache, as what a tile reads meanwhile leaves little of the first: forward with a tape LSTM B64 H256
// took 23.2 ms, into the first level 23.5 (Emerald Rapids, two threads).
template <class V, int Blocks>
FASTRNN_INLINE void fetch(const Operand<element<V>>& op, int block) {
  constexpr int level = kAsksForWeights<V> ? 2 : 3;
  for (int i = 0; i < op.aheads; ++i) {
#pragma GCC unroll 8
    for (int b = 0; b < Blocks; ++b) __builtin_prefetch(op.ahead[i] + (block + b) * kLanesOf<V>, 0, level);
  }
}

// The gates [Begin, End) and the blocks [block, block + Blocks) of a tile of TileBlocks: sums = start + ops[0] through
// the gates First, then each further operand through Rest, without leaving the registers. A sum that only Rest adds to
// (GRU's fourth) takes over the register of the one that only First adds to, which is stored when ops[0] is done.
template <class First, class Rest, int Begin, int End, int TileBlocks, int R, int Blocks, int A, class V>
FASTRNN_INLINE void pass(int block, const Start<element<V>>& start, const Operand<element<V>>* ops, int count,
                         V* sums) {  // [R][TileBlocks][A]
  constexpr int L = kLanesOf<V>, gates = End - Begin, all = R * Blocks * gates;
  const int part = Begin / kPass * TileBlocks + block;  // each pass of a tile asks for another
  V acc[R][Blocks][A];
#pragma GCC unroll 24
  for (int i = 0; i < all; ++i) {
    const int r = i / (Blocks * gates), b = i / gates % Blocks, g = First::index[Begin + i % gates];
    acc[r][b][g] = load<V>(start.of(r, g, First::count) + (block + b) * L);
  }
  fetch<V, Blocks>(ops[0], block);
  multiply<First, Begin, End>(acc, ops[0], block, part);
#pragma GCC unroll 24
  for (int i = 0; i < all; ++i) {
    const int r = i / (Blocks * gates), b = i / gates % Blocks, g = First::index[Begin + i % gates];
    const int next = Rest::index[Begin + i % gates];
    if (next == g) continue;
    sums[(r * TileBlocks + block + b) * A + g] = acc[r][b][g];
    acc[r][b][next] = load<V>(start.of(r, next, First::count) + (block + b) * L);
  }
  for (int i = 1; i < count; ++i) {
    fetch<V, Blocks>(ops[i], block);
    multiply<Rest, Begin, End>(acc, ops[i], block, part);
  }
#pragma GCC unroll 24
  for (int i = 0; i < all; ++i) {
    const int r = i / (Blocks * gates), b = i / gates % Blocks, g = Rest::index[Begin + i % gates];
    sums[(r * TileBlocks + block + b) * A + g] = acc[r][b][g];
  }
}

// The gates [Begin, End) of a tile: of all its blocks at once where the registers hold their sums, or block by block.
template <class First, class Rest, int Begin, int End, int R, int Blocks, int A, class V>
FASTRNN_INLINE void passes(const Start<element<V>>& start, const Operand<element<V>>* ops, int count, V* sums) {
  constexpr int at_once = R * Blocks * (End - Begin) <= kAccumulators ? Blocks : 1;
  for (int block = 0; block < Blocks; block += at_once) {
    pass<First, Rest, Begin, End, Blocks, R, at_once, A>(block, start, ops, count, sums);
  }
}

// A tile: all gates at once, or in passes of kPass. The cell's equations, which follow, are the caller's, and so are
// compiled once a cell: inlined in every tile they made the code eight times as large and no faster.
template <class First, class Rest, class V, int R, int Blocks, int A, int Pass = 0>
void tile(const Start<element<V>>& start, const Operand<element<V>>* ops, int count,
          V* sums) {  // [R][Blocks][A]
  constexpr int gates = First::count, begin = Pass * kPass, end = begin + kPass < gates ? begin + kPass : gates;
  static_assert(gates == Rest::count, "a pass takes as many gates of each product");
  if constexpr (R * gates <= kAccumulators) {
    passes<First, Rest, 0, gates, R, Blocks, A>(start, ops, count, sums);
  } else {
    passes<First, Rest, begin, end, R, Blocks, A>(start, ops, count, sums);
    if constexpr (end < gates) tile<First, Rest, V, R, Blocks, A, Pass + 1>(start, ops, count, sums);
  }
}

}  // namespace
}  // namespace fastrnn
