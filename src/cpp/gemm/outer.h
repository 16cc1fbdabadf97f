// c += a^T b over the rows of a block of time: the weight gradients. Both operands are copied into panels first, so
// that the tile streams through memory whatever the strides of the caller's arrays.
#pragma once

#include "gemm/tile.h"

namespace fastrnn {
namespace {

constexpr int kOuterBlocks = 4;
template <class T>
constexpr int kPanel = kOuterBlocks * kLanes<T>;  // columns of b in one panel, at most kOuterColumns

// [row_begin, row_end) of a's columns in groups of kMaxRows: [groups][rows][kMaxRows]
template <class T>
void pack_a(const OuterTask<T>& t, int first, int rows, T* out) {
  for (int m = t.row_begin; m < t.row_end; m += kMaxRows) {
    const int height = t.row_end - m < kMaxRows ? t.row_end - m : kMaxRows;
    for (int r = 0; r < height; ++r) {
      const T* a = t.a + first * t.a_step + t.gate_column[(m + r) / t.hidden] + (m + r) % t.hidden;
      for (int n = 0; n < rows; ++n) out[n * kMaxRows + r] = a[n * t.a_step];
    }
    for (int r = height; r < kMaxRows; ++r) {
      for (int n = 0; n < rows; ++n) out[n * kMaxRows + r] = 0;
    }
    out += ptrdiff_t(rows) * kMaxRows;
  }
}

// columns [j, j + kPanel) of b, zeros past the last: [rows][kPanel]
template <class T>
void pack_b(const OuterTask<T>& t, int first, int rows, int j, T* out) {
  const int width = t.columns - j < kPanel<T> ? t.columns - j : kPanel<T>;
  for (int n = 0; n < rows; ++n, out += kPanel<T>) {
    const T* b = t.b[first + n] + j;
    for (int v = 0; v < kOuterBlocks; ++v) {
      const int left = width - v * kLanes<T>;
      store(out + v * kLanes<T>, load_first(b + v * kLanes<T>, left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>));
    }
  }
}

// kMaxRows rows of c x V blocks. Both panels are padded with zeros; only `height` x `width` of the tile is stored.
template <int V, class T>
void outer_tile(const T* a, const T* b, int rows, T* c, ptrdiff_t c_step, int height, int width, bool add) {
  constexpr int W = kLanes<T>, R = kMaxRows;
  vec<T> acc[R][V] = {};
  for (int n = 0; n < rows; ++n, a += R, b += kPanel<T>) {
    vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load(b + v * W);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const vec<T> x = broadcast(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = fma(x, bv[v], acc[r][v]);
    }
  }
  vec<T> sums[R * V];
#pragma GCC unroll 24
  for (int i = 0; i < R * V; ++i) sums[i] = acc[i / V][i % V];
  for (int i = 0; i < height * V; ++i) {
    const int left = width - i % V * W, lanes = left < 0 ? 0 : left < W ? left : W;
    T* const out = c + i / V * c_step + i % V * W;
    store_first<T>(out, add ? load_first(out, lanes) + sums[i] : sums[i], lanes);
  }
}

template <class T>
void outer(const OuterTask<T>& t) {
  if (t.row_begin >= t.row_end) return;
  T* const b = t.scratch;
  T* const a = b + ptrdiff_t(kSumBlock) * kPanel<T>;
  for (int first = 0; first < t.rows; first += kSumBlock) {
    const int rows = t.rows - first < kSumBlock ? t.rows - first : kSumBlock;
    const bool add = t.add || first > 0;
    pack_a(t, first, rows, a);
    for (int j = 0; j < t.columns; j += kPanel<T>) {
      pack_b(t, first, rows, j, b);
      const int width = t.columns - j < kPanel<T> ? t.columns - j : kPanel<T>;
      const T* panel = a;
      const int blocks = blocks_of<T>(width);
      const auto tile = blocks == 1 ? outer_tile<1, T> : blocks == 2 ? outer_tile<2, T> : outer_tile<4, T>;
      for (int m = t.row_begin; m < t.row_end; m += kMaxRows, panel += ptrdiff_t(rows) * kMaxRows) {
        const int height = t.row_end - m < kMaxRows ? t.row_end - m : kMaxRows;
        T* c = t.c + ptrdiff_t(m) * t.columns + j;
        tile(panel, b, rows, c, t.columns, height, width, add);
      }
    }
  }
}

// sums[j] += the sum over rows of a[n][j], j in [begin, end): whole vectors.
template <class T>
void column_sums(const T* a, ptrdiff_t a_step, int rows, int begin, int end, T* sums) {
  for (int j = begin; j < end; j += kLanes<T>) {
    for (int first = 0; first < rows; first += kSumBlock) {
      const int last = rows - first < kSumBlock ? rows : first + kSumBlock;
      vec<T> sum = {};
      for (int n = first; n < last; ++n) sum = sum + load(a + n * a_step + j);
      store<T>(sums + j, load(sums + j) + sum);
    }
  }
}

}  // namespace
}  // namespace fastrnn
