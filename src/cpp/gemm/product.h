// out[n] = bias + in[n] M for rows reached through pointers, with the register tile of the sweep: W x for many steps at
// once, dx = dgates W, and the dense layer.
#pragma once

#include "gemm/bf16.h"
#include "gemm/blocks.h"
#include "gemm/cover.h"
#include "gemm/few_rows.h"
#include "gemm/pack.h"

namespace fastrnn {
namespace {

template <class T>
struct ProductPhase {
  static constexpr int accumulators = 1, vectors = 1;
  const ProductTask<T>& a;
  int row_begin;

  void tile(int row, int height, int block, int width, const Coming& coming) const {
    constexpr int L = kLanes<T>;
    row += row_begin;
    vec<T> sums[kMostSums];
    Operand<T> ops[kMaxGates] = {};
    // Where the sums go is prefetched. Emerald Rapids, two threads, dx of T100 B64 H256, ms without / with:
    // LSTM 11.0 / 10.5, GRU 8.5 / 8.0, RNN 3.5 / 3.0.
    const T* ahead[kMaxRows];
    ops[0].ahead = ahead, ops[0].aheads = height;
    for (int r = 0; r < height; ++r) ahead[r] = a.out[row + r] + block * L;
    const ptrdiff_t segment = ptrdiff_t(a.depth) * L, panel = segment * a.segments;
    for (int s = 0; s < a.segments; ++s) {
      for (int r = 0; r < height; ++r) ops[s].rows[r] = a.in[row + r] + a.segment_offset[s];
      ops[s].weights(a.packed + s * segment, panel, a.depth, block, coming);
    }
    Start<T> start = a.bias ? Start<T>(a.bias + block * L, nullptr, 0) : kFromZero<T>;
    for (int r = 0; a.goes_on && r < height; ++r) start.rows[r] = a.out[row + r] + block * L;
    kPlainTiles<T>.at[height][width](start, ops, a.segments, sums);
    each_sum(height, width, [&](int i, int r, int b) {
      const int lanes = lanes_of<T>(a.outputs, block + b);
      T* const out = a.out[row + r] + (block + b) * L;
      store_first(out, a.add ? load_first(out, lanes) + sums[i] : sums[i], lanes);
    });
  }
};

// By packed weights. (One copy of all tiles.)
template <class T>
[[gnu::noinline]] void packed_product(const ProductTask<T>& a, int row, int rows, int begin, int end) {
  cover(ProductPhase<T>{a, row}, rows, begin, end);
}

// A piece of weights that are not packed: so many of their rows and columns, multiplied with so many rows.
template <class T>
constexpr int kPieceColumns = 1024 / int(sizeof(T));
constexpr int kPieceDepth = 256;
template <class T>
constexpr ptrdiff_t kPieceScratch = (kPieceDepth + kMostUnpackedRows) * kPieceColumns<T>;
static_assert(kPieceScratch<float> <= ptrdiff_t(kOuterScratch<float>), "room for a piece and its sums");
static_assert(kPieceScratch<double> <= ptrdiff_t(kOuterScratch<double>), "room for a piece and its sums");

// Columns [begin, begin + columns) of `rows` rows: the sums go on from piece to piece of the depth.
template <class T>
void product_by_pieces(const ProductTask<T>& a, int row, int rows, int begin, int columns) {
  T *const packed = a.scratch, *const sums = packed + kPieceDepth * kPieceColumns<T>;
  const BlockRange blocks(blocks_of<T>(columns), 0, 1);
  T* out[kMostUnpackedRows];
#pragma GCC unroll 1
  for (int r = 0; r < rows; ++r) out[r] = sums + r * kPieceColumns<T>;
  int offset;
  ProductTask<T> piece = {a.in + row, out, 1, 0, &offset, packed, nullptr, blocks.end * kLanes<T>, false};
  const T* w = a.unpacked + begin;
  for (int s = 0; s < a.segments; ++s) {
    for (int k = 0; k < a.depth; k += piece.depth) {
      piece.depth = a.depth - k < kPieceDepth ? a.depth - k : kPieceDepth;
      pack_column_blocks(w, a.outputs, columns, piece.depth, blocks, packed, false);
      w += piece.depth * ptrdiff_t(a.outputs);
      offset = a.segment_offset[s] + k;
      packed_product(piece, 0, rows, 0, blocks.end);
      piece.goes_on = true;
    }
  }
  for (int r = 0; r < rows; ++r) deliver(out[r], columns, a.add, a.out[row + r] + begin);
}

// A ProductTask by weights where they lie. Of more rows than few (few_rows.h) a piece of them at a time is packed into
// the second-level cache and multiplied from there.
template <class T>
void unpacked_product(const ProductTask<T>& a, int row, int rows, const BlockRange& blocks) {
  if (suits_few_rows(a, rows)) return few_rows_product(a, row, rows, blocks);
  const int end = blocks.end * kLanes<T> < a.outputs ? blocks.end * kLanes<T> : a.outputs;
  for (int begin = blocks.begin * kLanes<T>; begin < end; begin += kPieceColumns<T>) {
    product_by_pieces(a, row, rows, begin, end - begin < kPieceColumns<T> ? end - begin : kPieceColumns<T>);
  }
}

template <class T>
void product(const ProductTask<T>& task, const Share& share) {
  const BlockRange blocks(blocks_of<T>(task.outputs), share.unit_part, share.unit_parts);
  if constexpr (sizeof(T) == sizeof(float)) {
    const int row = share.row_begin;
    if (task.bf16 && share.row_end == row + 1) {
      return row_product({task.in[row], task.bf16, task.bias, task.out[row], task.outputs, task.depth}, blocks);
    }
  }
  if (task.unpacked) return unpacked_product(task, share.row_begin, share.row_end - share.row_begin, blocks);
  packed_product(task, share.row_begin, share.row_end - share.row_begin, blocks.begin, blocks.end);
}

// bias + W x of all gates of a cell, for rows of many steps. The tile is the cell's own: its further sums start at
// their bias, and stay unused.
template <class Cell, class V>
struct InputPhase {
  using T = element<V>;
  using InputGates = typename Cell::InputGates;
  static constexpr int accumulators = Cell::accumulators, vectors = kVectorsOf<InputGates, V>;
  const InputTask<T>& a;
  int row_begin;

  void tile(int row, int height, int block, int width, const Coming& coming) const {
    constexpr int L = kLanesOf<V>;
    row += row_begin;
    V sums[kMostSums];
    Operand<T> op;
    for (int r = 0; r < height; ++r) op.rows[r] = a.in[row + r];
    op.weights(a.packed, ptrdiff_t(a.depth) * InputGates::count * L, a.depth, block, coming);
    const T* const bias = a.bias + block * L;
    kCellTiles<Cell, V>.at[height][width](Start<T>(bias, bias, a.pitch), &op, 1, sums);
    each_sum(height, width, [&](int i, int r, int b) {
      T* const out = a.out[row + r] + (block + b) * L;
      for (int g = 0; g < InputGates::count; ++g) store(out + g * a.pitch, sums[i * accumulators + g]);
    });
  }
};

template <class Cell, class T>
void input_product(const InputTask<T>& task, const Share& share) {
  constexpr int gates = Cell::InputGates::count;
  const UnitBlocks<T> units(task.hidden, gates, share.unit_part, share.unit_parts);
  units.template each_width<gates>([&](auto vector, int begin, int end) {
    const InputPhase<Cell, decltype(vector)> phase{task, share.row_begin};
    cover(phase, share.row_end - share.row_begin, begin, end);
  });
}

}  // namespace
}  // namespace fastrnn
