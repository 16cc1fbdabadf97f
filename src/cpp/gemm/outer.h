// c += a^T b over the rows of a block of time: the weight gradients. b is copied into panels first, and so is a where
// its rows lie far apart, so that the tile streams through memory whatever the strides of the caller's arrays.
#pragma once

#include "gemm/few_outer.h"
#include "simd/lanes.h"
#include "tasks.h"

namespace fastrnn {
namespace {

// A tile is tall and two vectors wide, so that a panel of b (32 KB at most) stays in the first-level cache while all
// groups of a go by: LSTM H256, AVX-512, 150 GFLOP/s; by tiles of half the height and four vectors (64 KB) 142. Tall
// groups are also copied in two thirds of the time.
constexpr int kOuterVectors = 2, kOuterHeight = kAccumulators / kOuterVectors;
template <class T>
constexpr int kPanel = kOuterVectors * kLanes<T>;  // columns of b in one panel
static_assert(kPanel<float> <= kOuterColumns, "scratch has room for a panel");
template <class T>
constexpr int kOuterGroups = kOuterRows<T> / kOuterHeight + kMaxGates - 1;  // all gates but one may end in a lower one
static_assert(kOuterRows<float> % kOuterHeight == 0 && kOuterRows<double> % kOuterHeight == 0, "whole groups");

// From one copied group of a to the next: padded by a cache line, or all groups would share the same few sets.
constexpr ptrdiff_t group_step(int rows) { return ptrdiff_t(rows) * kOuterHeight + kPad; }

template <class T>
constexpr bool kScratchIsEnough = kOuterGroups<T> * group_step(kSumBlock) + kSumBlock * kPanel<T> <= kOuterScratch<T>;
static_assert(kScratchIsEnough<float> && kScratchIsEnough<double>, "room for all groups' copies and a panel");

// Bytes: rows of a no farther from each other are read where they lie, as a group's columns fall into many sets of the
// first-level cache then. Training LSTM B16, time over that with all groups copied, by the bytes of a row: 1,024 (H64)
// 0.95, 1,792 (H112) 1.00, 4,096 (H256) 1.06.
constexpr ptrdiff_t kNearRows = 1536;

// Columns of a side by side, which become as many rows of c.
template <class T>
struct OuterGroup {
  const T* from;  // in its first row
  T* copy;        // [rows][kOuterHeight], zeros behind the columns; null: they are read where they lie
  int m, height;  // rows [m, m + height) of c, height <= kOuterHeight
};

// Some rows of c, a block of time.
template <class T>
struct OuterBlock {
  int first, rows;  // of a and b
  int count;
  OuterGroup<T> groups[kOuterGroups<T>];
};

constexpr int kOuterThird = kOuterHeight / 3;  // tiles are so many rows high, or twice or three times
static_assert(kOuterHeight == 3 * kOuterThird, "a tile as high as its group reads nothing beyond it");

// Adds the groups for c's rows [begin, end), each within columns that lie side by side.
template <class T>
void add_groups(const OuterTask<T>& t, int begin, int end, T* copies, OuterBlock<T>& block) {
  const bool near = t.a_step * ptrdiff_t(sizeof(T)) <= kNearRows;
  for (int m = begin, run_end; m < end; m = run_end) {
    int gate = m / t.hidden;
    const T* from = t.a + block.first * t.a_step + t.gate_column[gate] + m % t.hidden;
    for (run_end = ++gate * t.hidden; run_end < end; run_end = ++gate * t.hidden) {
      if (t.gate_column[gate] - t.gate_column[gate - 1] != t.hidden) break;
    }
    if (run_end > end) run_end = end;
    for (int height; m < run_end; m += height, from += height) {
      height = run_end - m < kOuterHeight ? run_end - m : kOuterHeight;
      const bool copied = !near || height % kOuterThird;  // a tile reads as many columns as it is high
      block.groups[block.count++] = {from, copied ? copies : nullptr, m, height};
      if (copied) copies += group_step(block.rows);
    }
  }
}

// Row by row: column by column each read would evict the one before, as the step is often a multiple of 4096 bytes.
// Together with the padding of group_step: 117 to 217 GFLOP/s (LSTM H256).
template <class T>
void copy_groups(const OuterBlock<T>& block, ptrdiff_t a_step) {
  constexpr int R = kOuterHeight;
  for (int n = 0; n < block.rows; ++n) {
    for (int i = 0; i < block.count; ++i) {
      const OuterGroup<T>& g = block.groups[i];
      if (!g.copy) continue;
      const T* const from = g.from + n * a_step;
      T* const to = g.copy + n * R;
      if (g.height == R) {
        __builtin_memcpy(to, from, R * sizeof(T));
      } else {
        for (int r = 0; r < R; ++r) to[r] = r < g.height ? from[r] : T(0);
      }
    }
  }
}

// Columns [j, j + kPanel) of the rows of b, zeros past the last: [rows][kPanel].
template <class T>
void pack_b(const T* const* rows_of_b, int rows, int columns, int j, T* out) {
  const int width = columns - j < kPanel<T> ? columns - j : kPanel<T>;
  for (int n = 0; n < rows; ++n, out += kPanel<T>) {
    const T* b = rows_of_b[n] + j;
    for (int v = 0; v < kOuterVectors; ++v) {
      const int left = width - v * kLanes<T>;
      store(out + v * kLanes<T>, load_first(b + v * kLanes<T>, left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>));
    }
  }
}

template <class T>
struct OuterTile {
  const T* a;  // [rows][height], a_step apart; read as high as the tile is
  ptrdiff_t a_step;
  const T* b;  // [rows][kPanel], zeros behind width
  int rows;
  T* c;  // [height][width], c_step apart
  ptrdiff_t c_step;
  int height, width;
  bool add, past;  // to what is there; past the caches
};

// R rows of c x so many vectors of columns, of which only `height` x `width` is stored.
template <int R, int Vectors, class T>
void outer_tile(const OuterTile<T>& t) {
  constexpr int L = kLanes<T>;
  vec<T> acc[R][Vectors] = {};
  for (int r = 0; r < t.height && !t.past; ++r) {  // c comes from far away, once a block of time
    for (int v = 0; v < Vectors; ++v) __builtin_prefetch(t.c + r * t.c_step + v * L, 1);
  }
  const T *a = t.a, *b = t.b;
  for (int n = 0; n < t.rows; ++n, a += t.a_step, b += kPanel<T>) {
    vec<T> bv[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) bv[v] = load(b + v * L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const vec<T> x = broadcast(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) acc[r][v] = fma(x, bv[v], acc[r][v]);
    }
  }
  if (t.height == R && t.width == Vectors * L) {  // nearly every tile: without the way over the stack
#pragma GCC unroll 24
    for (int i = 0; i < R * Vectors; ++i) {
      T* const out = t.c + i / Vectors * t.c_step + i % Vectors * L;
      const vec<T> sum = t.add ? load(out) + acc[i / Vectors][i % Vectors] : acc[i / Vectors][i % Vectors];
      store(out, sum, t.past && R == kOuterHeight && Vectors == kOuterVectors);
    }
    return;
  }
  vec<T> sums[R * Vectors];
#pragma GCC unroll 24
  for (int i = 0; i < R * Vectors; ++i) sums[i] = acc[i / Vectors][i % Vectors];
  for (int i = 0; i < t.height * Vectors; ++i) {
    const int left = t.width - i % Vectors * L, lanes = left < 0 ? 0 : left < L ? left : L;
    T* const out = t.c + i / Vectors * t.c_step + i % Vectors * L;
    store_first(out, t.add ? load_first(out, lanes) + sums[i] : sums[i], lanes);
  }
}

// The tile for a group's height: kOuterHeight, of the last one of columns side by side maybe less.
template <int Vectors, class T>
constexpr auto outer_tile_of(int height) {
  return height > 2 * kOuterThird ? outer_tile<kOuterHeight, Vectors, T>
         : height > kOuterThird   ? outer_tile<2 * kOuterThird, Vectors, T>
                                  : outer_tile<kOuterThird, Vectors, T>;
}

// Some rows of c: groups of a times one right side, panel by panel of b's columns.
template <class T>
void outer_right(const OuterTask<T>& t, const OuterRight<T>& right, const OuterBlock<T>& block, T* panel) {
  const bool add = t.add || block.first > 0, past = t.rows <= kSumBlock && past_caches(t, right);
  for (int j = 0; j < right.columns; j += kPanel<T>) {
    pack_b(right.b + block.first, block.rows, right.columns, j, panel);
    const int width = right.columns - j < kPanel<T> ? right.columns - j : kPanel<T>;
    for (int i = 0; i < block.count; ++i) {
      const OuterGroup<T>& g = block.groups[i];
      const auto tile = width > kLanes<T> ? outer_tile_of<2, T>(g.height) : outer_tile_of<1, T>(g.height);
      tile({g.copy ? g.copy : g.from, g.copy ? kOuterHeight : t.a_step, panel, block.rows,
            right.c + ptrdiff_t(g.m) * right.columns + j, right.columns, g.height, width, add, past});
    }
  }
}

// One block of rows for c's rows [begin, end).
template <class T>
void outer_block(const OuterTask<T>& t, int begin, int end, int first, int rows) {
  OuterBlock<T> block;
  block.first = first, block.rows = rows, block.count = 0;
  add_groups(t, begin, end, t.scratch + ptrdiff_t(kSumBlock) * kPanel<T>, block);
  copy_groups(block, t.a_step);
  for (int i = 0; i < t.rights; ++i) outer_right(t, t.right[i], block, t.scratch);
}

template <class T>
void many_outer(const OuterTask<T>& t) {
  for (int first = 0, rows; first < t.rows; first += rows) {
    rows = t.rows - first < kSumBlock ? t.rows - first : kSumBlock;
    for (int begin = t.row_begin; begin < t.row_end; begin += kOuterRows<T>) {
      outer_block(t, begin, t.row_end - begin < kOuterRows<T> ? t.row_end : begin + kOuterRows<T>, first, rows);
    }
  }
}

template <class T>
void outer(const OuterTask<T>& t) {
  suits_few_rows(t) ? few_outer(t) : many_outer(t);
  if (t.bytes > kMostCached) settle();
}

// sums[j] += the sum over rows of a[n][j], j in [begin, end): whole vectors, several side by side.
template <class T>
void column_sums(const T* a, ptrdiff_t a_step, int rows, int begin, int end, T* sums) {
  constexpr int L = kLanes<T>, most = 8;
  for (int j = begin; j < end; j += most * L) {
    const int vectors = (end - j) / L < most ? (end - j) / L : most;
    for (int first = 0, last; first < rows; first = last) {
      last = rows - first < kSumBlock ? rows : first + kSumBlock;
      vec<T> sum[most] = {};
      for (int n = first; n < last; ++n) {
        for (int v = 0; v < vectors; ++v) sum[v] = sum[v] + load(a + n * a_step + j + v * L);
      }
      for (int v = 0; v < vectors; ++v) store(sums + j + v * L, load(sums + j + v * L) + sum[v]);
    }
  }
}

}  // namespace
}  // namespace fastrnn
