// Which tiles there are: their heights and widths, and a table of them for each kind of product.
#pragma once

#include "gemm/half.h"

namespace fastrnn {
namespace {

constexpr int kMostWidth = 8;

// Blocks side by side in tiles of a height: 8, 4, 2, 1, as many as the registers hold, or 3 where those fill them
// better. Where they do not hold one, as many as fill them with the gates of the last pass. One row alone needs eight
// sums under way to hide the latency of an FMA. (Prefetching the weights ahead of such a row was tried at 4, 8 and 16
// steps of k and gained nothing from 64 to 512 units.)
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
constexpr int kMostSums = 3 * kMaxRows * kMaxGates;  // of the tallest tile of three blocks

// The width for so many blocks that are left, no wider than the one before; 4 are 2 and 2, not 3 and 1.
constexpr int narrowed(int width, int left) {
  while (width > left) width = width == 3 ? 2 : width / 2;
  return width == 3 && left == 4 ? 2 : width;
}

// How many of `blocks` blocks such tiles take before narrower ones follow.
constexpr int widest_blocks(int width, int blocks) {
  return (width == 3 && blocks % 3 == 1 ? blocks - 4 : blocks) / width * width;
}

// Into how many tiles rows are cut: as few as can be, with two exceptions (docs/experiments.md has their figures).
// Products (Vectors 1) of fours of blocks have six rows of four blocks rather than eight of three, or three rather than
// four. Where blocks are left over they would be a tile of one block, six chains of FMAs that do not hide their own
// latency: T100, one thread, by eights / by sixes, AVX-512 (Emerald Rapids) RNN B16 H20 0.69, H48 0.81, H80 0.90, B64
// H112 0.94, training LSTM B16 H100 0.94; AVX2 RNN B32 H104 0.94, training LSTM B32 H72 0.95; by blocks of 4 + 3 the
// same. With 32 registers, what has more than three gates (LSTM) has tiles of seven and eight rows only where one is
// enough: AVX-512 on Cascade Lake, with eights over with sixes, LSTM B8 H128 0.94, but B64 H256 1.10.
template <int Vectors>
constexpr int row_tiles(int rows, int blocks) {
  const bool few = kFewRegisters ? Vectors > 1 || (rows <= 4 * kMaxRows && rows % kFullRows) : rows <= kMaxRows;
  const int height = few || (Vectors == 1 ? blocks % kFullBlocks != 0 : Vectors <= kPass) ? kMaxRows : kFullRows;
  return (rows + height - 1) / height;
}

// rows in tiles of nearly equal height: 32 rows are 6 6 5 5 5 5, never 6 6 6 6 6 2.
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
  static constexpr int most_blocks = sizeof(V) < FASTRNN_VECTOR_BYTES ? 1 : 2 * kMostWidth;  // one half at most
  Function at[kMaxRows + 1][kMostWidth + 1];

  constexpr TileTable() : at() { fill<kMaxRows * kMostWidth - 1>(); }

  template <int I>
  constexpr void fill() {
    constexpr int R = I / kMostWidth + 1, Blocks = I % kMostWidth + 1;
    if constexpr (kNeeded<A, kVectorsOf<First, V>, most_blocks>.at[R][Blocks]) {
      static_assert(R * Blocks * A <= kMostSums, "a phase has room for the sums");
      if constexpr (kPairsUp<First, V>) {
        at[R][Blocks] = half_tile<First, Rest, element<V>, R, A>;
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
