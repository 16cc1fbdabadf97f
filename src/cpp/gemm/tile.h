// The register tile: R rows x V blocks x A accumulators, and the loops that cover a matrix with such tiles.
//
// Each output element is one chain of FMAs in the order of k, from a start value the caller put into the accumulator;
// vectors run across outputs and K is never split: this is where the promise of equal bits is kept.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

constexpr int kMaxRows = kAccumulators / 4;

// One product of a step: R rows of the left side, and a packed matrix.
template <class T>
struct Operand {
  const T* rows[kMaxRows];  // [R][depth]
  const T* w;               // [V blocks, block_step apart][depth][gates][W]
  ptrdiff_t block_step;
  int depth;
};

// acc[r][v][gate] += rows[r][k] * w[v][k][gate][:] for k = 0 .. depth-1.
template <class G, class T, int R, int V, int A>
FASTRNN_INLINE void multiply(vec<T> (&acc)[R][V][A], const Operand<T>& op) {
  constexpr int W = kLanes<T>;
  const T* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = op.rows[r];
  const T* w = op.w;
  const ptrdiff_t block_step = op.block_step;
  const int depth = op.depth;
  for (int k = 0; k < depth; ++k, w += G::count * W) {
    if constexpr (R == 1) {
      const vec<T> x = broadcast(rows[0][k]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
        for (int g = 0; g < G::count; ++g) {
          vec<T>& sum = acc[0][v][G::index[g]];
          sum = fma(x, load(w + v * block_step + g * W), sum);
        }
      }
    } else {
      vec<T> wk[V][G::count];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
        for (int g = 0; g < G::count; ++g) wk[v][g] = load(w + v * block_step + g * W);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const vec<T> x = broadcast(rows[r][k]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
          for (int g = 0; g < G::count; ++g) acc[r][v][G::index[g]] = fma(x, wk[v][g], acc[r][v][G::index[g]]);
        }
      }
    }
  }
}

// sums += ops[0] through the gates First, then each further operand through Rest, without leaving the registers. What
// starts the sums and what follows them (the cell's equations) is the caller's: it stands once a cell and not unrolled
// in every tile, which made the code eight times as large and no faster.
template <class First, class Rest, class T, int R, int V, int A>
void tile(const Operand<T>* ops, int count,
          vec<T>* sums) {  // [R][V][A]
  vec<T> acc[R][V][A];
#pragma GCC unroll 24
  for (int i = 0; i < R * V * A; ++i) acc[i / (V * A)][i / A % V][i % A] = sums[i];
  multiply<First>(acc, ops[0]);
  for (int i = 1; i < count; ++i) multiply<Rest>(acc, ops[i]);
#pragma GCC unroll 24
  for (int i = 0; i < R * V * A; ++i) sums[i] = acc[i / (V * A)][i / A % V][i % A];
}

// The tiles of one kind of product by height and width.
template <class First, class Rest, class T, int A>
struct TileTable {
  using Function = void (*)(const Operand<T>*, int, vec<T>*);
  static constexpr int widths = 4;  // 1, 2, 4, 8 blocks
  Function at[kMaxRows][widths];

  constexpr TileTable() : at() { fill<kMaxRows * widths - 1>(); }

  template <int I>
  constexpr void fill() {
    constexpr int R = I / widths + 1, V = 1 << (I % widths);
    if constexpr (R * V * A <= kAccumulators) at[R - 1][I % widths] = tile<First, Rest, T, R, V, A>;
    if constexpr (I > 0) fill<I - 1>();
  }
};

template <class First, class Rest, class T, int A>
constexpr TileTable<First, Rest, T, A> kTiles = {};

template <class Cell, class T>
constexpr const auto& kCellTiles = kTiles<typename Cell::InputGates, typename Cell::HiddenGates, T, Cell::accumulators>;
template <class T>
constexpr const auto& kPlainTiles = kTiles<Gates<0>, Gates<0>, T, 1>;

// rows in tiles of nearly equal height: 32 rows are 6 6 5 5 5 5, never 6 6 6 6 6 2.
struct RowTiles {
  int count, height, tall;  // `tall` tiles of `height`, then the rest one row shorter

  explicit RowTiles(int rows) : count(1), height(rows), tall(1) {
    if (rows <= kMaxRows) return;
    count = (rows + kMaxRows - 1) / kMaxRows;
    height = (rows + count - 1) / count;
    tall = rows - (height - 1) * count;
  }
};

// log2 of the blocks side by side for tiles of a height: as many as the registers hold. One row alone needs eight sums
// under way to hide the latency of an FMA. (Prefetching the weights ahead of such a row was tried at 4, 8 and 16 steps of
// k and gained nothing from 64 to 512 units.)
template <int A>
struct Widest {
  int at[kMaxRows + 1];
  constexpr Widest() : at() {
    for (int height = 1; height <= kMaxRows; ++height) {
      int width = 3;
      while (width > 0 && height * A << width > kAccumulators) --width;
      at[height] = width;
    }
  }
};
template <int A>
constexpr Widest<A> kWidest = {};

// phase.tile(first row, rows, block, log2 of blocks) for rows [0, n) x blocks [begin, end). Blocks are the outer loop: a
// block's weights stay in the nearest cache while the rows pass.
template <class Phase>
FASTRNN_INLINE void cover(const Phase& phase, int n, int begin, int end) {
  if (n <= 0) return;
  const RowTiles rows(n);
  int width = kWidest<Phase::accumulators>.at[rows.height];
  for (; begin < end; begin += 1 << width) {
    while (begin + (1 << width) > end) --width;
    int row = 0;
    for (int i = 0; i < rows.count; ++i) {
      const int height = i < rows.tall ? rows.height : rows.height - 1;
      phase.tile(row, height, begin, width);
      row += height;
    }
  }
}

// The part of `blocks` blocks that belongs to one of several threads.
struct Blocks {
  int begin = 0, end;
  Blocks(int blocks, int part, int parts) : end(blocks) {
    if (parts == 1) return;  // a step of a small stream notices the divisions: 10 ns each
    begin = int(int64_t(blocks) * part / parts);
    end = int(int64_t(blocks) * (part + 1) / parts);
  }
};

template <class T>
constexpr int blocks_of(int units) {
  return (units + kLanes<T> - 1) / kLanes<T>;
}

// Lanes of a block that hold real units.
template <class T>
FASTRNN_INLINE int lanes_of(int units, int block) {
  const int left = units - block * kLanes<T>;
  return left < kLanes<T> ? left : kLanes<T>;
}

}  // namespace
}  // namespace fastrnn
