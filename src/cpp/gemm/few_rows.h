// Products of a few rows, whose time is that of a matrix's bytes: weights are read where they lie, once each and in the
// order of memory. (Gradients of weights are written so in few_outer.h.)
#pragma once

#include "gemm/blocks.h"
#include "simd/lanes.h"
#include "tasks.h"

namespace fastrnn {
namespace {

// The factors of a group of rows stay in registers. A single step of one group takes less time by weights where they
// lie than by packed ones (Kernels::group_rows). Zen 4, four rows, one thread, time over that with packed weights and
// their fingerprint: AVX2 LSTM H256 1.09, GRU H512 1.27; AVX-512 0.94 and 0.87.
constexpr int kGroupRows = FASTRNN_VECTOR_BYTES == 64 ? 4 : FASTRNN_VECTOR_BYTES == 32 ? 2 : 1;

// No more rows are few. Groups take turns at some rows of a matrix, which stay in the first-level cache meanwhile. The
// pass back of a single step, Zen 4, one thread, time over that with weights packed piece by piece and gradients by
// tiles: AVX-512 RNN H1024 B8 0.65, B16 0.83, LSTM H1024 B8 0.57, B16 0.71, B24 0.81, but H256 B16 0.92, B24 1.04; AVX2
// RNN H1024 B4 0.52, B8 0.61, B16 1.03, LSTM H1024 B4 0.53, B8 0.70.
constexpr int kFewRows = 4 * kGroupRows;
// Bytes of a matrix: of smaller ones, which stay in the nearest caches, not so many.
constexpr size_t kLeastByGroups = size_t(1) << 20;

static_assert(kGroupRows <= 4, "functions are chosen for one to four rows");
// So many rows, or as many as a group has: what nobody asks for is not compiled.
template <int Rows>
constexpr int few = Rows < kGroupRows ? Rows : kGroupRows;

// Few rows in groups of the same height. Where the last one lacks some, its last row is there again.
struct RowGroups {
  int count, height;
  explicit RowGroups(int rows) : count((rows + kGroupRows - 1) / kGroupRows), height((rows + count - 1) / count) {}
};

// Columns whose values stay in the first-level cache while all rows of a matrix go by.
template <class T>
constexpr int kStrip = 4096 / int(sizeof(T));

// Some rows of them. Where they lie counts. Rows of a matrix are often a multiple of 4 KB apart: together with four
// rows that are, too, they fill a set of the cache. And a load waits for a store of a few steps ago whose address is
// the same modulo 4 KB: 1 KB behind the matrix there is none, where its rows are 1 KB and more apart. Weights of 4 MB
// with 1,024 columns, four rows, Zen 4, us: rows 4 KB apart 78 to 206, by chance; 4 KB and 256 bytes 72 to 104; 1 KB
// behind the matrix 73.
template <class T>
class Strip {
 public:
  // memory: a task's scratch. beside: where the part of the matrix lies.
  Strip(T* memory, const T* beside) {
    const uintptr_t shift = uintptr_t(beside) + 1024 - uintptr_t(memory);
    first_ = memory + shift % kPage / kCacheLine * kCacheLine / sizeof(T);
  }
  T* row(int r) const { return first_ + r * kElements; }
  static constexpr ptrdiff_t kElements = (4096 + 256) / sizeof(T);  // from one row to the next

 private:
  static constexpr ptrdiff_t kPage = 4096, kCacheLine = 64;
  static_assert((kPage / sizeof(T) + kFewRows * kElements) <= kOuterScratch<T>, "scratch has room");
  T* first_;
};

// The last columns of some rows of weights, fewer than a vector has lanes, as whole vectors: [rows][L].
template <class T>
[[gnu::noinline]] void copy_last(const T* w, ptrdiff_t step, int rows, int columns, T* last) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < kLanes<T>; ++j) last[i * kLanes<T> + j] = j < columns ? w[i * step + j] : T(0);
  }
}

// out = [out +] sums
template <class T>
[[gnu::noinline]] void deliver(const T* sums, int columns, bool add, T* out) {
  for (int j = 0; j < columns; ++j) out[j] = add ? out[j] + sums[j] : sums[j];
}

// Asks for the next K rows of weights, where a vector is a line: each goes on where the machine knew nothing to follow.
// The pass back of a single step, Zen 4, one thread, time over that without: LSTM H1024 B4 0.84, B8 0.60; of one row,
// whose weights come from the third-level cache, 1.15 (and from memory 0.94); with AVX2 nothing.
template <int K, class T>
FASTRNN_INLINE void fetch_rows(const T* w, ptrdiff_t step) {
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) __builtin_prefetch(w + i * step, 0, 2);
}

// Adds K rows of weights that begin at w, each times a value of R rows, to the sums of whole vectors of columns. After
// them come those at `next`.
template <int R, int K, class T>
FASTRNN_INLINE void add_vectors(const T* w, [[maybe_unused]] const T* next, ptrdiff_t step, const T* const* in, int k,
                                int columns, T* sums) {
  vec<T> factors[R][K];
#pragma GCC unroll 16
  for (int i = 0; i < R * K; ++i) factors[i / K][i % K] = broadcast(in[i / K][k + i % K]);
  for (int j = 0; j < columns; j += kLanes<T>) {
    vec<T> rows[K];
#pragma GCC unroll 8
    for (int i = 0; i < K; ++i) rows[i] = load(w + i * step + j);
    if constexpr (R > 1 && kAsksForWeights<vec<T>>) fetch_rows<K>(next + j, step);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      T* const to = sums + r * Strip<T>::kElements + j;
      vec<T> sum = load(to);
#pragma GCC unroll 8
      for (int i = 0; i < K; ++i) sum = fma(rows[i], factors[r][i], sum);
      store(to, sum);
    }
  }
}

// The same of the last columns, fewer than a vector has lanes. Nothing behind the matrix is read.
template <int R, int K, class T>
[[gnu::noinline]] void add_last(const T* w, ptrdiff_t step, const T* const* in, int k, int columns, T* sums) {
  alignas(64) T last[K * kLanes<T>];
  copy_last(w, step, K, columns, last);
  add_vectors<R, K>(last, last, kLanes<T>, in, k, kLanes<T>, sums);
}

// The same for groups of R rows, whatever the columns.
template <int R, int K, class T>
FASTRNN_INLINE void add_weight_rows(const T* w, ptrdiff_t step, const T* const* in, int groups, int k, int columns,
                                    const Strip<T>& sums) {
  const int whole = columns / kLanes<T> * kLanes<T>;
#pragma GCC unroll 1
  for (int r = 0; r < groups * R; r += R) {
    add_vectors<R, K>(w, w + K * step, step, in + r, k, whole, sums.row(r));
    if (whole < columns) add_last<R, K>(w + whole, step, in + r, k, columns - whole, sums.row(r) + whole);
  }
}

// Columns [begin, begin + columns) of the products of some rows, in groups of R.
template <int R, class T>
void unpacked_strip(const ProductTask<T>& a, int row, int rows, int begin, int columns) {
  // Factors of R rows, K rows of weights and a sum fit the registers.
  constexpr int K = R * 8 <= kAccumulators - 8 ? 8 : 4;
  const int groups = RowGroups(rows).count;
  const T* w = a.unpacked + begin;
  const Strip<T> sums(a.scratch, w);
  for (int r = 0; r < groups * R; ++r) __builtin_memset(sums.row(r), 0, kStrip<T> * sizeof(T));
  for (int s = 0; s < a.segments; ++s) {
    const T* in[kFewRows];
    for (int r = 0; r < groups * R; ++r) in[r] = a.in[row + (r < rows ? r : rows - 1)] + a.segment_offset[s];
    int k = 0;
    for (; k + K <= a.depth; k += K, w += K * ptrdiff_t(a.outputs)) {
      add_weight_rows<R, K>(w, a.outputs, in, groups, k, columns, sums);
    }
    for (; k < a.depth; ++k, w += a.outputs) add_weight_rows<R, 1>(w, a.outputs, in, groups, k, columns, sums);
  }
  for (int r = 0; r < rows; ++r) deliver(sums.row(r), columns, a.add, a.out[row + r] + begin);
}

// Of weights below kLeastByGroups two groups at most: LSTM H100, AVX-512, B8 0.98, B16 1.08 of the time by pieces.
template <class T>
bool suits_few_rows(const ProductTask<T>& a, int rows) {
  const size_t bytes = size_t(a.segments) * size_t(a.depth) * size_t(a.outputs) * sizeof(T);
  return rows <= (bytes < kLeastByGroups ? 2 * kGroupRows : kFewRows);
}

// A ProductTask by weights where they lie: a share's rows, of which there are few, and blocks.
template <class T>
void few_rows_product(const ProductTask<T>& a, int row, int rows, const BlockRange& blocks) {
  const int height = RowGroups(rows).height;
  const auto of_groups = height == 1   ? unpacked_strip<1, T>
                         : height == 2 ? unpacked_strip<few<2>, T>
                         : height == 3 ? unpacked_strip<few<3>, T>
                                       : unpacked_strip<few<4>, T>;
  const int end = blocks.end * kLanes<T> < a.outputs ? blocks.end * kLanes<T> : a.outputs;
  for (int begin = blocks.begin * kLanes<T>; begin < end; begin += kStrip<T>) {
    of_groups(a, row, rows, begin, end - begin < kStrip<T> ? end - begin : kStrip<T>);
  }
}

}  // namespace
}  // namespace fastrnn
