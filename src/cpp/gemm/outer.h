// c += a^T b over the rows of a block of time: the weight gradients. Both operands are copied into panels first, so
// that the tile streams through memory whatever the strides of the caller's arrays.
#pragma once

#include "gemm/cover.h"

namespace fastrnn {
namespace {

// A tile is tall and two vectors wide, so that a panel of b (32 KB at most) lies in the first-level cache while all
// groups of a go by. The weight gradients of LSTM H256, 256 rows at a time, on one thread of Emerald Rapids, GFLOP/s,
// so / by tiles of a half the height and four vectors (64 KB): AVX-512 150 / 142 of 177 (its tiles alone 166 / 162),
// AVX2 80 / 76. The taller groups are also packed in two thirds of the time.
constexpr int kOuterBlocks = 2, kOuterHeight = kAccumulators / kOuterBlocks;
template <class T>
constexpr int kPanel = kOuterBlocks * kLanes<T>;  // columns of b in one panel
static_assert(kPanel<float> <= kOuterColumns, "scratch has room for a panel");
static_assert(kOuterRows<float> % kOuterHeight == 0 && kOuterRows<double> % kOuterHeight == 0, "whole groups");

// From one packed group of a to the next: padded by a cache line, or all groups would fall into the same few sets.
FASTRNN_INLINE ptrdiff_t group_step(int rows) { return ptrdiff_t(rows) * kOuterHeight + kPad; }

// Columns [begin, end) of a in groups of kOuterHeight, zeros past the last: [groups][rows][kOuterHeight], group_step
// apart. Row by row: down the columns, whose step is often a multiple of 4096 bytes, each read would evict the one
// before. With the padding of group_step: 117 -> 217 GFLOP/s (LSTM H256).
template <class T>
void pack_a(const OuterTask<T>& t, int begin, int end, int first, int rows, T* out) {
  constexpr int R = kOuterHeight;
  int column[kOuterRows<T>];
  for (int m = begin; m < end; ++m) column[m - begin] = t.gate_column[m / t.hidden] + m % t.hidden;
  const int groups = (end - begin + R - 1) / R;
  for (int n = 0; n < rows; ++n, out += R) {
    const T* const a = t.a + (first + n) * t.a_step;
    for (int i = 0; i < groups; ++i) {
      const int* const from = column + i * R;
      T* const to = out + i * group_step(rows);
      const int height = end - begin - i * R;
      if (height >= R && from[R - 1] - from[0] == R - 1) {
        __builtin_memcpy(to, a + from[0], R * sizeof(T));
      } else {
        for (int r = 0; r < R; ++r) to[r] = r < height ? a[from[r]] : T(0);
      }
    }
  }
}

// columns [j, j + kPanel) of the rows b, zeros past the last: [rows][kPanel]
template <class T>
void pack_b(const T* const* rows_of_b, int rows, int columns, int j, T* out) {
  const int width = columns - j < kPanel<T> ? columns - j : kPanel<T>;
  for (int n = 0; n < rows; ++n, out += kPanel<T>) {
    const T* b = rows_of_b[n] + j;
    for (int v = 0; v < kOuterBlocks; ++v) {
      const int left = width - v * kLanes<T>;
      store(out + v * kLanes<T>, load_first(b + v * kLanes<T>, left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>));
    }
  }
}

// R rows of c x V blocks. Both panels are padded with zeros; only `height` x `width` of the tile is stored.
template <int R, int V, class T>
void outer_tile(const T* a, const T* b, int rows, T* c, ptrdiff_t c_step, int height, int width, bool add) {
  constexpr int W = kLanes<T>;
  vec<T> acc[R][V] = {};
  for (int r = 0; r < height; ++r) {  // c comes from far away, once a block of time
    for (int v = 0; v < V; ++v) __builtin_prefetch(c + r * c_step + v * W, 1);
  }
  for (int n = 0; n < rows; ++n, a += kOuterHeight, b += kPanel<T>) {
    vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load(b + v * W);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const vec<T> x = broadcast(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = fma(x, bv[v], acc[r][v]);
    }
  }
  if (height == R && width == V * W) {  // nearly every tile: without the way over the stack
#pragma GCC unroll 24
    for (int i = 0; i < R * V; ++i) {
      T* const out = c + i / V * c_step + i % V * W;
      store(out, add ? load(out) + acc[i / V][i % V] : acc[i / V][i % V]);
    }
    return;
  }
  vec<T> sums[R * V];
#pragma GCC unroll 24
  for (int i = 0; i < R * V; ++i) sums[i] = acc[i / V][i % V];
  for (int i = 0; i < height * V; ++i) {
    const int left = width - i % V * W, lanes = left < 0 ? 0 : left < W ? left : W;
    T* const out = c + i / V * c_step + i % V * W;
    store_first(out, add ? load_first(out, lanes) + sums[i] : sums[i], lanes);
  }
}

// The tile for a group's height: kOuterHeight, of the last group maybe less.
template <int V, class T>
constexpr auto outer_tile_of(int height) {
  constexpr int third = kOuterHeight / 3;
  return height > 2 * third ? outer_tile<kOuterHeight, V, T>
         : height > third   ? outer_tile<2 * third, V, T>
                            : outer_tile<third, V, T>;
}

// The rows [begin, end) of c: the packed groups of a times one right side, panel by panel of b's columns.
template <class T>
void outer_right(const OuterRight<T>& t, const T* a, int begin, int end, int first, int rows, bool add, T* b) {
  for (int j = 0; j < t.columns; j += kPanel<T>) {
    pack_b(t.b + first, rows, t.columns, j, b);
    const int width = t.columns - j < kPanel<T> ? t.columns - j : kPanel<T>;
    const T* panel = a;
    for (int m = begin; m < end; m += kOuterHeight, panel += group_step(rows)) {
      const int height = end - m < kOuterHeight ? end - m : kOuterHeight;
      const auto tile = width > kLanes<T> ? outer_tile_of<2, T>(height) : outer_tile_of<1, T>(height);
      tile(panel, b, rows, t.c + ptrdiff_t(m) * t.columns + j, t.columns, height, width, add);
    }
  }
}

// One block of rows for c's rows [begin, end): a is packed once for all right sides.
template <class T>
void outer_block(const OuterTask<T>& t, int begin, int end, int first, int rows) {
  T* const b = t.scratch;
  T* const a = b + ptrdiff_t(kSumBlock) * kPanel<T>;
  pack_a(t, begin, end, first, rows, a);
  for (int i = 0; i < t.rights; ++i) outer_right(t.right[i], a, begin, end, first, rows, t.add || first > 0, b);
}

template <class T>
void outer(const OuterTask<T>& t) {
  for (int first = 0, rows; first < t.rows; first += rows) {
    rows = t.rows - first < kSumBlock ? t.rows - first : kSumBlock;
    for (int begin = t.row_begin; begin < t.row_end; begin += kOuterRows<T>) {
      outer_block(t, begin, t.row_end - begin < kOuterRows<T> ? t.row_end : begin + kOuterRows<T>, first, rows);
    }
  }
}

// sums[j] += the sum over rows of a[n][j], j in [begin, end): whole vectors, several side by side.
template <class T>
void column_sums(const T* a, ptrdiff_t a_step, int rows, int begin, int end, T* sums) {
  constexpr int W = kLanes<T>, V = 8;
  for (int j = begin; j < end; j += V * W) {
    const int vectors = (end - j) / W < V ? (end - j) / W : V;
    for (int first = 0, last; first < rows; first = last) {
      last = rows - first < kSumBlock ? rows : first + kSumBlock;
      vec<T> sum[V] = {};
      for (int n = first; n < last; ++n) {
        for (int v = 0; v < vectors; ++v) sum[v] = sum[v] + load(a + n * a_step + j + v * W);
      }
      for (int v = 0; v < vectors; ++v) store(sums + j + v * W, load(sums + j + v * W) + sum[v]);
    }
  }
}

}  // namespace
}  // namespace fastrnn
