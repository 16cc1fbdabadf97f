// Which tiles there are: their heights and widths, and a table of them for each kind of product.
#pragma once

#include "gemm/part.h"

namespace fastrnn {
namespace {

constexpr int kMostWidth = 8;

// How many blocks a tile takes, by its height, where it ends with A sums a unit and multiplies Vectors vectors a block:
// of 8, 4, 2 and 1 the most whose sums the registers hold, and 3 instead of 2 where there is room (A is 1). Where there
// is none even for one block, the tile goes in passes, and takes as many blocks as fill the registers in the last pass.
// (GRU ends with four sums, but only three of them are in registers at a time: it needs no passes.)
template <int A, int Vectors>
struct Widest {
  int at[kMaxRows + 1];
  constexpr Widest() : at() {
    for (int height = 1; height <= kMaxRows; ++height) {
      int width = kMostWidth;
      while (width > 1 && height * A * width > kAccumulators) width /= 2;
      if (A == 1 && width == 2 && height * 3 <= kAccumulators) width = 3;
      if (height * A > kAccumulators && Vectors % kPass) width = kPass / (Vectors % kPass);
      at[height] = width;
    }
  }
};
template <int A, int Vectors>
constexpr Widest<A, Vectors> kWidest = {};
constexpr int kMostSums = 3 * kMaxRows * kMaxGates;  // of the largest tile: the tallest, of three blocks

// The width of the next tile where so many blocks are left: at most that of the one before. After threes the last four
// blocks are 2 and 2, not 3 and 1.
constexpr int narrowed(int width, int left) {
  while (width > left) width = width == 3 ? 2 : width / 2;
  return width == 3 && left == 4 ? 2 : width;
}

// How many of `blocks` blocks are covered by tiles of this width, before narrower ones follow.
constexpr int widest_blocks(int width, int blocks) {
  return (width == 3 && blocks % 3 == 1 ? blocks - 4 : blocks) / width * width;
}

// Into how many tiles rows are cut. These are as tall as they can be (kMaxRows), with two exceptions, where many rows
// have tiles of kFullRows. (docs/experiments.md has the figures.)
// - One vector a block, and blocks in whole fours: 6 x 4 instead of 8 x 3, or 3 x 4 instead of 4 x 3 (see tile.h). But
//   blocks left over from fours would be tiles of one block, whose six chains of FMAs do not hide their latency: RNN
//   B16 H48, three blocks of AVX-512, takes 0.81 of the time by 8 x 3.
// - More vectors than a pass has (LSTM) with 32 registers: 6 x 1, unless one tile of seven or eight rows is enough.
//   LSTM B64 H256 takes 1.10 of the time by 8 x 3, B8 H128 0.94 (Cascade Lake).
template <int Vectors>
constexpr int row_tiles(int rows, int blocks) {
  const bool few = kFewRegisters ? Vectors > 1 || (rows <= 4 * kMaxRows && rows % kFullRows) : rows <= kMaxRows;
  const int height = few || (Vectors == 1 ? blocks % kFullBlocks != 0 : Vectors <= kPass) ? kMaxRows : kFullRows;
  return (rows + height - 1) / height;
}

// Rows in tiles of nearly equal height: 32 rows in six are 6 6 5 5 5 5, never 6 6 6 6 6 2.
struct RowTiles {
  int count, height, tall;  // `tall` tiles of `height`, then the rest one row shorter

  constexpr RowTiles(int rows, int count) : count(count), height(rows), tall(1) {
    if (count == 1) return;
    height = (rows + count - 1) / count;
    tall = rows - (height - 1) * count;
  }
};

// The tiles by which cover() covers any number of rows with up to MostBlocks blocks: found by cutting them as it does.
// More rows or blocks than are tried here are cut into no other heights and widths.
template <int A, int Vectors, int MostBlocks>
struct NeededTiles {
  bool at[kMaxRows + 1][kMostWidth + 1];

  constexpr NeededTiles() : at() {
    for (int n = 1; n <= 16 * kMaxRows; ++n) {
      for (int blocks = 1; blocks <= MostBlocks; ++blocks) {
        const RowTiles rows(n, row_tiles<Vectors>(n, blocks));
        int width = kWidest<A, Vectors>.at[rows.height];
        for (int left = blocks; left > 0; left -= width) {
          width = narrowed(width, left);
          at[rows.height][width] = true;
          if (rows.tall < rows.count) at[rows.height - 1][width] = true;
        }
      }
    }
  }
};
template <int A, int Vectors, int MostBlocks>
constexpr NeededTiles<A, Vectors, MostBlocks> kNeeded = {};

// The tiles of one kind of product by height and width.
template <class First, class Rest, class V, int A>
struct TileTable {
  using Function = void (*)(const Start<element<V>>&, const Operand<element<V>>*, int, V*);
  static constexpr int most_blocks = sizeof(V) < FASTRNN_VECTOR_BYTES ? 1 : 2 * kMostWidth;  // one part at most
  Function at[kMaxRows + 1][kMostWidth + 1];

  constexpr TileTable() : at() { fill<kMaxRows * kMostWidth - 1>(); }

  template <int I>
  constexpr void fill() {
    constexpr int R = I / kMostWidth + 1, Blocks = I % kMostWidth + 1;
    if constexpr (kNeeded<A, kVectorsOf<First, V>, most_blocks>.at[R][Blocks]) {
      static_assert(R * Blocks * A <= kMostSums, "a phase has room for the sums");
      if constexpr (kGatesJoin<First, V>) {
        at[R][Blocks] = part_tile<First, Rest, V, R, A>;
      } else {
        at[R][Blocks] = tile<First, Rest, V, R, Blocks, A>;
      }
    }
    if constexpr (I > 0) fill<I - 1>();
  }
};

template <class First, class Rest, class V, int A>
constexpr TileTable<First, Rest, V, A> kTiles = {};

template <class Cell, class V>
constexpr const auto& kCellTiles = kTiles<typename Cell::InputGates, typename Cell::HiddenGates, V, Cell::accumulators>;
template <class T>
constexpr const auto& kPlainTiles = kTiles<Gates<0>, Gates<0>, vec<T>, 1>;

}  // namespace
}  // namespace fastrnn
