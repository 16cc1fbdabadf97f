// The register tile: R rows x V blocks x A accumulators.
//
// Each output element is one chain of FMAs in the order of k, from the value it starts at;
// vectors run across outputs and K is never split: this is where the promise of equal bits is kept.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

// The tallest tile has eight rows, four where there are 16 registers: it walks
// three gates of one block after the other, then the fourth gate, if there is one,
// of three blocks. Rows whose four gates fill the registers are six, or three.
constexpr bool kFewRegisters = kAccumulators <= 12;
constexpr int kPass = 3, kMaxRows = kAccumulators / kPass, kFullRows = kAccumulators / kMaxGates;
constexpr int kFullBlocks = kAccumulators / kFullRows;  // of one gate, in tiles of so many rows

// The gates that lie side by side in packed weights: with 16 registers those of a pass, so that 8 rows are 4 4. Three
// rows of all gates would make them 3 3 2, and two rows are fed 32 bytes a cycle, more than a second-level cache gives
// (AVX2 on Zen 3, LSTM B8 H256 6.0 ms so, 7.3 then; docs/experiments.md has the rest). With 32, where a vector is a
// cache line of its own or tiles of all gates are as frequent, all gates: [group][depth][gates of the group][W].
constexpr int kSide = kFewRegisters ? kPass : kMaxGates;
constexpr int group_of(int g) { return g / kSide; }
constexpr int group_size(int gates, int group) { return gates - group * kSide < kSide ? gates - group * kSide : kSide; }
// Where gate g starts in the panel of a block, in vectors.
FASTRNN_INLINE ptrdiff_t gate_start(int g, int depth) { return ptrdiff_t(group_of(g)) * kSide * depth + g % kSide; }

// Weights of the blocks that come after a tile's own: of one of them a part, of as many equal ones as it has gates. A
// tile asks for as many lines as it has steps of k, into the second-level cache, so that the first tile of the next
// block need not wait for what lies behind it. Emerald Rapids, two threads, time over that without: LSTM B64 H512 0.85,
// H256 0.90; where weights lie in the caches, 1.00.
struct Coming {
  int block, part;
};

// One product of a step: R rows of the left side, and a packed matrix.
template <class T>
struct Operand {
  const T* rows[kMaxRows];  // [R][depth]
  const T* w;               // [V blocks, block_step apart][group][depth][gates of the group][W]
  ptrdiff_t block_step;
  int depth;
  const T* coming;                  // [depth][W] asked for while the tile multiplies (kAsksForWeights)
  const T* const* ahead = nullptr;  // [aheads] what the caller reads or writes after the tile: a vector for each block
  int aheads = 0;

  // From `block` on, of a packed matrix.
  FASTRNN_INLINE void weights(const T* packed, ptrdiff_t step, int k, int block, const Coming& next) {
    w = packed + block * step, block_step = step, depth = k;
    coming = packed + next.block * step + next.part * ptrdiff_t(k) * kLanes<T>;
  }
};

// Where the sums of a tile start, read into the registers straight away (by way of the
// stack LSTM T100 B8 H256 took 7,625 us, 7,596 so; GRU B16 H20 1 % less, LSTM with AVX2 B12
// H128 8 % less, B8 H128 1 % more). Rows differ in the gates of the first operand alone.
template <class T>
struct Start {
  const T* rows[kMaxRows];  // [R][gates, pitch apart][V * W]
  const T* rest;            // [A, pitch apart][V * W], of which the gates beyond those are read
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

// acc[r][v][gate] += rows[r][k] * w[block + v][k][gate][:] for k = 0 .. depth-1 and the gates [Begin, End) of G. Asks
// for the part of the weights that come which lies so many behind the tile's first.
template <class G, int Begin = 0, int End = G::count, class T, class Vector, int R, int V, int A>
FASTRNN_INLINE void multiply(Vector (&acc)[R][V][A], const Operand<T>& op, int block = 0, int part = 0) {
  constexpr int W = kLanesOf<Vector>, groups = group_of(G::count - 1) + 1;
  const T* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = op.rows[r];
  const T* w[groups];
  const ptrdiff_t block_step = op.block_step;
  for (int i = 0; i < groups; ++i) w[i] = op.w + block * block_step + gate_start(i * kSide, op.depth) * W;
  const auto weights = [&](int v, int g) { return load<Vector>(w[group_of(g)] + v * block_step + g % kSide * W); };
  const int depth = op.depth;
  [[maybe_unused]] const T* coming = nullptr;
  if constexpr (kAsksForWeights<Vector> && R > 1) coming = op.coming + ptrdiff_t(part) * depth * W;
  for (int k = 0; k < depth; ++k) {
    if constexpr (kAsksForWeights<Vector> && R > 1) {
      __builtin_prefetch(coming, 0, 2);
      coming += W;
    }
    if constexpr (R == 1) {
      const Vector x = broadcast<Vector>(rows[0][k]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
        for (int g = Begin; g < End; ++g) acc[0][v][G::index[g]] = fma(x, weights(v, g), acc[0][v][G::index[g]]);
      }
    } else {
      Vector wk[V][G::count];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
        for (int g = Begin; g < End; ++g) wk[v][g] = weights(v, g);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vector x = broadcast<Vector>(rows[r][k]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
          for (int g = Begin; g < End; ++g) acc[r][v][G::index[g]] = fma(x, wk[v][g], acc[r][v][G::index[g]]);
        }
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < groups; ++i) w[i] += group_size(G::count, i) * W;
  }
}

// Asks for the vectors of `ahead`, which the caller needs when the tile is done: with vectors
// of a cache line into the second-level cache, as what tiles read meanwhile leaves little of
// the first. Emerald Rapids, two threads, so / into the first level: forward with a tape LSTM
// B64 H256 23.2 / 23.5 ms, H128 6.3 / 6.4, GRU H256, the backward sweep and inference the same.
template <class Vector, int V>
FASTRNN_INLINE void fetch(const Operand<element<Vector>>& op, int block) {
  constexpr int level = kAsksForWeights<Vector> ? 2 : 3;
  for (int i = 0; i < op.aheads; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) __builtin_prefetch(op.ahead[i] + (block + v) * kLanesOf<Vector>, 0, level);
  }
}

// sums = start + ops[0] through the gates First, then each further operand through
// Rest, without leaving the registers. Of the gates [Begin, End) and the blocks
// [block, block + V) of the tile's Side. What only Rest adds to enters behind ops[0].
template <class First, class Rest, int Begin, int End, int Side, int R, int V, int A, class Vector>
FASTRNN_INLINE void pass(int block, const Start<element<Vector>>& start, const Operand<element<Vector>>* ops, int count,
                         Vector* sums) {  // [R][Side][A]
  constexpr int W = kLanesOf<Vector>, gates = End - Begin, all = R * V * gates;
  const int part = Begin / kPass * Side + block;  // each pass of a tile asks for another
  Vector acc[R][V][A];
#pragma GCC unroll 24
  for (int i = 0; i < all; ++i) {
    const int r = i / (V * gates), v = i / gates % V, g = First::index[Begin + i % gates];
    acc[r][v][g] = load<Vector>(start.of(r, g, First::count) + (block + v) * W);
  }
  fetch<Vector, V>(ops[0], block);
  multiply<First, Begin, End>(acc, ops[0], block, part);
#pragma GCC unroll 24
  for (int i = 0; i < all; ++i) {
    const int r = i / (V * gates), v = i / gates % V, g = First::index[Begin + i % gates];
    const int next = Rest::index[Begin + i % gates];
    if (next == g) continue;
    sums[(r * Side + block + v) * A + g] = acc[r][v][g];
    acc[r][v][next] = load<Vector>(start.of(r, next, First::count) + (block + v) * W);
  }
  for (int i = 1; i < count; ++i) {
    fetch<Vector, V>(ops[i], block);
    multiply<Rest, Begin, End>(acc, ops[i], block, part);
  }
#pragma GCC unroll 24
  for (int i = 0; i < all; ++i) {
    const int r = i / (V * gates), v = i / gates % V, g = Rest::index[Begin + i % gates];
    sums[(r * Side + block + v) * A + g] = acc[r][v][g];
  }
}

// The gates [Begin, End) of a tile: of all its blocks at once,
// where the registers hold them, or of one after the other.
template <class First, class Rest, int Begin, int End, int R, int V, int A, class Vector>
FASTRNN_INLINE void passes(const Start<element<Vector>>& start, const Operand<element<Vector>>* ops, int count,
                           Vector* sums) {
  constexpr int at_once = R * V * (End - Begin) <= kAccumulators ? V : 1;
  for (int block = 0; block < V; block += at_once) {
    pass<First, Rest, Begin, End, V, R, at_once, A>(block, start, ops, count, sums);
  }
}

// A tile: all gates at once, or a group after the other. What follows the sums (the cell's equations) is the caller's:
// it stands once a cell and not unrolled in every tile, which made the code eight times as large and no faster.
template <class First, class Rest, class Vector, int R, int V, int A, int Pass = 0>
void tile(const Start<element<Vector>>& start, const Operand<element<Vector>>* ops, int count,
          Vector* sums) {  // [R][V][A]
  constexpr int gates = First::count, begin = Pass * kPass, end = begin + kPass < gates ? begin + kPass : gates;
  static_assert(gates == Rest::count, "a pass takes as many gates of each product");
  if constexpr (R * gates <= kAccumulators) {
    passes<First, Rest, 0, gates, R, V, A>(start, ops, count, sums);
  } else {
    passes<First, Rest, begin, end, R, V, A>(start, ops, count, sums);
    if constexpr (end < gates) tile<First, Rest, Vector, R, V, A, Pass + 1>(start, ops, count, sums);
  }
}

}  // namespace
}  // namespace fastrnn
