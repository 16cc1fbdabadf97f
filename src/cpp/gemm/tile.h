// The register tile: R rows x V blocks x A accumulators, and the loops that cover a matrix with such tiles.
//
// Each output element is one chain of FMAs in the order of k, from the value it starts at;
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
  const T* const* ahead = nullptr;  // [aheads] what the caller reads after the tile: a vector for each block
  int aheads = 0;
};

// Where the sums of a tile start, read into the registers straight away (by way of the stack LSTM T100 B8 H256 took 7,625 us,
// 7,596 so; GRU B16 H20 1 % less, LSTM with AVX2 B12 H128 8 % less, B8 H128 1 % more). Rows differ in the gates of the first
// operand alone.
template <class T>
struct Start {
  const T* rows[kMaxRows];  // [R][gates, pitch apart][V * W]
  const T* rest;            // [A, pitch apart][V * W], of which the gates beyond those are read
  ptrdiff_t pitch;

  constexpr Start(const T* all, const T* rest, ptrdiff_t pitch) : rows(), rest(rest), pitch(pitch) {
    for (const T*& row : rows) row = all;
  }
};
template <class T>
constexpr T kZeros[8 * kLanes<T>] = {};  // for as many blocks as a tile has
template <class T>
constexpr Start<T> kFromZero{kZeros<T>, nullptr, 0};

// acc[r][v][gate] += rows[r][k] * w[v][k][gate][:] for k = 0 .. depth-1.
template <class G, class T, class Vector, int R, int V, int A>
FASTRNN_INLINE void multiply(Vector (&acc)[R][V][A], const Operand<T>& op) {
  constexpr int W = kLanesOf<Vector>;
  const T* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = op.rows[r];
  const T* w = op.w;
  const ptrdiff_t block_step = op.block_step;
  const int depth = op.depth;
  for (int k = 0; k < depth; ++k, w += G::count * W) {
    if constexpr (R == 1) {
      const Vector x = broadcast<Vector>(rows[0][k]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
        for (int g = 0; g < G::count; ++g) {
          Vector& sum = acc[0][v][G::index[g]];
          sum = fma(x, load<Vector>(w + v * block_step + g * W), sum);
        }
      }
    } else {
      Vector wk[V][G::count];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
        for (int g = 0; g < G::count; ++g) wk[v][g] = load<Vector>(w + v * block_step + g * W);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vector x = broadcast<Vector>(rows[r][k]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
          for (int g = 0; g < G::count; ++g) acc[r][v][G::index[g]] = fma(x, wk[v][g], acc[r][v][G::index[g]]);
        }
      }
    }
  }
}

// The same for one row, a whole block and the half behind it side by side.
template <class G, class T, int A>
FASTRNN_INLINE void multiply_both(vec<T> (&whole)[A], half_vec<T> (&half)[A], const T* row, const T* w, const T* w_half,
                                  int depth) {
  for (int k = 0; k < depth; ++k, w += G::count * kLanes<T>, w_half += G::count * kLanes<T> / 2) {
    const vec<T> x = broadcast<vec<T>>(row[k]);
    const half_vec<T> x_half = broadcast<half_vec<T>>(row[k]);
#pragma GCC unroll 4
    for (int g = 0; g < G::count; ++g) {
      whole[G::index[g]] = fma(x, load(w + g * kLanes<T>), whole[G::index[g]]);
      half[G::index[g]] = fma(x_half, load<half_vec<T>>(w_half + g * kLanes<T> / 2), half[G::index[g]]);
    }
  }
}

// Asks for the vectors of `ahead`, which the caller needs when the tile is done.
template <class Vector, int V>
FASTRNN_INLINE void fetch(const Operand<element<Vector>>& op) {
  for (int i = 0; i < op.aheads; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) __builtin_prefetch(op.ahead[i] + v * kLanesOf<Vector>);
  }
}

// sums = start + ops[0] through the gates First, then each further operand through Rest, without leaving the registers.
// What follows them (the cell's equations) is the caller's: it stands once a cell and not unrolled in every tile, which made
// the code eight times as large and no faster.
template <class First, class Rest, class Vector, int R, int V, int A>
void tile(const Start<element<Vector>>& start, const Operand<element<Vector>>* ops, int count,
          Vector* sums) {  // [R][V][A]
  Vector acc[R][V][A];
#pragma GCC unroll 24
  for (int i = 0; i < R * V * A; ++i) {
    const int r = i / (V * A), v = i / A % V, g = i % A;
    const element<Vector>* const from = g < First::count ? start.rows[r] : start.rest;
    acc[r][v][g] = load<Vector>(from + g * start.pitch + v * kLanesOf<Vector>);
  }
  fetch<Vector, V>(ops[0]);
  multiply<First>(acc, ops[0]);
  for (int i = 1; i < count; ++i) {
    fetch<Vector, V>(ops[i]);
    multiply<Rest>(acc, ops[i]);
  }
#pragma GCC unroll 24
  for (int i = 0; i < R * V * A; ++i) sums[i] = acc[i / (V * A)][i / A % V][i % A];
}

// The tiles of one kind of product by height and width.
template <class First, class Rest, class Vector, int A>
struct TileTable {
  using Function = void (*)(const Start<element<Vector>>&, const Operand<element<Vector>>*, int, Vector*);
  static constexpr int widths = 4;  // 1, 2, 4, 8 blocks
  Function at[kMaxRows][widths];

  constexpr TileTable() : at() { fill<kMaxRows * widths - 1>(); }

  template <int I>
  constexpr void fill() {
    constexpr int R = I / widths + 1, V = 1 << (I % widths);
    constexpr int blocks = sizeof(Vector) < FASTRNN_VECTOR_BYTES ? 1 : kAccumulators / (R * A);  // one half at most
    if constexpr (V <= blocks) at[R - 1][I % widths] = tile<First, Rest, Vector, R, V, A>;
    if constexpr (I > 0) fill<I - 1>();
  }
};

template <class First, class Rest, class Vector, int A>
constexpr TileTable<First, Rest, Vector, A> kTiles = {};

template <class Cell, class V>
constexpr const auto& kCellTiles = kTiles<typename Cell::InputGates, typename Cell::HiddenGates, V, Cell::accumulators>;
template <class T>
constexpr const auto& kPlainTiles = kTiles<Gates<0>, Gates<0>, vec<T>, 1>;

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
template <class V>
FASTRNN_INLINE int lanes_in(int units, int block) {
  const int left = units - block * kLanesOf<V>;
  return left < kLanesOf<V> ? left : kLanesOf<V>;
}
template <class T>
FASTRNN_INLINE int lanes_of(int units, int block) {
  return lanes_in<vec<T>>(units, block);
}

// Whether the last block of a cell's units is one of half a vector.
template <class T>
constexpr bool ends_in_half(int units) {
  const int rest = units % kLanes<T>;
  return kHalvesPay && rest > 0 && rest <= kLanes<T> / 2;
}

// The units of a cell that belong to one of several threads: whole vectors, and maybe half a vector behind them.
template <class T>
struct UnitBlocks : Blocks {
  int half = -1;  // the half among blocks of its own width

  UnitBlocks(int units, int part, int parts) : Blocks(blocks_of<T>(units), part, parts) {
    if (part == parts - 1 && ends_in_half<T>(units)) half = 2 * --end;
  }

  // visit(a vector of the width, first block, last block) for either width.
  template <class Visit>
  FASTRNN_INLINE void each_width(Visit visit) const {
    visit(vec<T>{}, begin, end);
    if constexpr (kHalvesPay) {
      if (half >= 0) visit(half_vec<T>{}, half, half + 1);
    }
  }
};

}  // namespace
}  // namespace fastrnn
