// Products of a few rows, whose time is that of a matrix's bytes: weights are read where they lie, gradients of weights
// are written, once each and in the order of memory.
#pragma once

#include "gemm/blocks.h"
#include "simd/lanes.h"
#include "tasks.h"

namespace fastrnn {
namespace {

// No more rows are few: their factors stay in registers. A single step of so many takes less time by weights where
// they lie than by packed ones (Kernels::few_rows). Zen 4, four rows, one thread, time over that with packed
// weights and their fingerprint: AVX2 LSTM H256 1.09, GRU H512 1.27; AVX-512 0.94 and 0.87.
constexpr int kFewRows = FASTRNN_VECTOR_BYTES == 64 ? 4 : FASTRNN_VECTOR_BYTES == 32 ? 2 : 1;

static_assert(kFewRows <= 4, "functions are chosen for one to four rows");
// So many rows, or as many as are few: what nobody asks for is not compiled.
template <int Rows>
constexpr int few = Rows < kFewRows ? Rows : kFewRows;

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
  // beside: where the part of the matrix lies.
  explicit Strip(const T* beside) {
    const uintptr_t shift = uintptr_t(beside) + 1024 - uintptr_t(memory_);
    first_ = memory_ + shift % kPage / kCacheLine * kCacheLine;
  }
  Strip(const Strip&) = delete;
  T* row(int r) const { return reinterpret_cast<T*>(first_) + r * kElements; }
  static constexpr ptrdiff_t kElements = (4096 + 256) / sizeof(T);  // from one row to the next

 private:
  static constexpr ptrdiff_t kPage = 4096, kCacheLine = 64;
  alignas(kCacheLine) char memory_[kPage + kFewRows * kElements * sizeof(T)];
  char* first_;
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

// Adds K rows of weights that begin at w, each times a value of R rows, to the sums of whole vectors of columns.
template <int R, int K, class T>
FASTRNN_INLINE void add_vectors(const T* w, ptrdiff_t step, const T* const* in, int k, int columns, T* sums) {
  vec<T> factors[R][K];
#pragma GCC unroll 16
  for (int i = 0; i < R * K; ++i) factors[i / K][i % K] = broadcast(in[i / K][k + i % K]);
  for (int j = 0; j < columns; j += kLanes<T>) {
    vec<T> rows[K];
#pragma GCC unroll 8
    for (int i = 0; i < K; ++i) rows[i] = load(w + i * step + j);
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
  add_vectors<R, K>(last, kLanes<T>, in, k, kLanes<T>, sums);
}

template <int R, int K, class T>
FASTRNN_INLINE void add_weight_rows(const T* w, ptrdiff_t step, const T* const* in, int k, int columns,
                                    const Strip<T>& strip) {
  const int whole = columns / kLanes<T> * kLanes<T>;
  add_vectors<R, K>(w, step, in, k, whole, strip.row(0));
  if (whole < columns) add_last<R, K>(w + whole, step, in, k, columns - whole, strip.row(0) + whole);
}

// Columns [begin, begin + columns) of the products of R rows.
template <int R, class T>
void unpacked_strip(const ProductTask<T>& a, int row, int begin, int columns) {
  // Factors of R rows, K rows of weights and a sum fit the registers.
  constexpr int K = R * 8 <= kAccumulators - 8 ? 8 : 4;
  const T* w = a.unpacked + begin;
  Strip<T> sums(w);
  for (int r = 0; r < R; ++r) __builtin_memset(sums.row(r), 0, kStrip<T> * sizeof(T));
  for (int s = 0; s < a.segments; ++s) {
    const T* in[R];
    for (int r = 0; r < R; ++r) in[r] = a.in[row + r] + a.segment_offset[s];
    int k = 0;
    for (; k + K <= a.depth; k += K, w += K * ptrdiff_t(a.outputs)) {
      add_weight_rows<R, K>(w, a.outputs, in, k, columns, sums);
    }
    for (; k < a.depth; ++k, w += a.outputs) add_weight_rows<R, 1>(w, a.outputs, in, k, columns, sums);
  }
  for (int r = 0; r < R; ++r) deliver(sums.row(r), columns, a.add, a.out[row + r] + begin);
}

// A ProductTask by weights where they lie: a share's rows, of which there are few, and blocks.
template <class T>
void few_rows_product(const ProductTask<T>& a, int row, int rows, const BlockRange& blocks) {
  const auto of_rows = rows == 1   ? unpacked_strip<1, T>
                       : rows == 2 ? unpacked_strip<few<2>, T>
                       : rows == 3 ? unpacked_strip<few<3>, T>
                                   : unpacked_strip<few<4>, T>;
  const int end = blocks.end * kLanes<T> < a.outputs ? blocks.end * kLanes<T> : a.outputs;
  for (int begin = blocks.begin * kLanes<T>; begin < end; begin += kStrip<T>) {
    of_rows(a, row, begin, end - begin < kStrip<T> ? end - begin : kStrip<T>);
  }
}

// Gradients of weights larger than this go past the caches (`store_past`): they do not stay there until somebody reads
// them. Backward of a single step of four rows and SGD's step, Zen 4 (32 MB), one thread and two, time over that with
// ordinary stores, by megabytes: 2 (RNN H512) 1.40 and 3.7; 4.7 1.01 and 1.12; 8.4 (LSTM H512, RNN H1024) 0.65 to 0.74
// and 0.82 to 0.98; 25 (GRU H1024) 0.74 and 0.90; 34 0.76 and 0.80.
constexpr size_t kMostCached = size_t(8) << 20;

template <class T>
bool past_caches(const OuterTask<T>& a, const OuterRight<T>& right) {
  const size_t row = size_t(right.columns) * sizeof(T);
  return a.bytes > kMostCached && !a.add && (uintptr_t(right.c) | row) % FASTRNN_VECTOR_BYTES == 0;
}

// Whole vectors of columns of M rows of c: [R] rows of b times their factors.
template <int R, int M, class T>
FASTRNN_INLINE void gradient_vectors(const T (&values)[R][M], const T* b, int columns, T* const* c, bool past) {
  vec<T> factors[R][M];
#pragma GCC unroll 16
  for (int i = 0; i < R * M; ++i) factors[i / M][i % M] = broadcast(values[i / M][i % M]);
  for (int j = 0; j < columns; j += kLanes<T>) {
    vec<T> sums[M] = {};
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const vec<T> right = load(b + r * Strip<T>::kElements + j);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) sums[i] = fma(factors[r][i], right, sums[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) store(c[i] + j, sums[i], past);
  }
}

// The last columns, fewer than a vector has lanes.
template <int R, int M, class T>
[[gnu::noinline]] void gradient_last(const T (&values)[R][M], const T* b, int columns, T* const* c) {
  alignas(64) T last[M][kLanes<T>];
  T* to[M];
  for (int i = 0; i < M; ++i) to[i] = last[i];
  gradient_vectors<R, M>(values, b, kLanes<T>, to, false);
  for (int i = 0; i < M; ++i) __builtin_memcpy(c[i], last[i], size_t(columns) * sizeof(T));
}

// Rows [m, m + M) of c as far as `end`, and columns [begin, begin + columns), which b has. Behind the end the last row
// is written again.
template <int R, int M, class T>
FASTRNN_INLINE void gradient_rows(const OuterTask<T>& a, const OuterRight<T>& right, const Strip<T>& strip, int m,
                                  int end, int begin, int columns, bool past) {
  const int whole = columns / kLanes<T> * kLanes<T>;
  T values[R][M], *c[M];
  for (int i = 0; i < M; ++i) {
    const int row = m + i < end ? m + i : end - 1;
    const T* const from = a.a + a.gate_column[row / a.hidden] + row % a.hidden;
    for (int r = 0; r < R; ++r) values[r][i] = from[r * a.a_step];
    c[i] = right.c + ptrdiff_t(row) * right.columns + begin;
  }
  gradient_vectors<R, M>(values, strip.row(0), whole, c, past);
  if (whole == columns) return;
  for (int i = 0; i < M; ++i) c[i] += whole;
  gradient_last<R, M>(values, strip.row(0) + whole, columns - whole, c);
}

template <int R, class T>
void few_outer_strip(const OuterTask<T>& a, const OuterRight<T>& right, int begin, int columns) {
  constexpr int M = R <= 2 ? 4 : 2;
  Strip<T> b(right.c + ptrdiff_t(a.row_begin) * right.columns + begin);
  for (int r = 0; r < R; ++r) {
    __builtin_memcpy(b.row(r), right.b[r] + begin, size_t(columns) * sizeof(T));
    for (int j = columns; j % kLanes<T>; ++j) b.row(r)[j] = 0;  // multiplied, and not kept
  }
  const bool past = past_caches(a, right);
  for (int m = a.row_begin; m < a.row_end; m += M) gradient_rows<R, M>(a, right, b, m, a.row_end, begin, columns, past);
}

template <int R, class T>
void few_outer(const OuterTask<T>& a) {
  for (int i = 0; i < a.rights; ++i) {
    const OuterRight<T>& right = a.right[i];
    for (int begin = 0; begin < right.columns; begin += kStrip<T>) {
      const int left = right.columns - begin;
      few_outer_strip<R>(a, right, begin, left < kStrip<T> ? left : kStrip<T>);
    }
  }
}

// An OuterTask of few rows that does not add; its scratch is not used.
template <class T>
void few_outer(const OuterTask<T>& a) {
  if (a.rows == 1) return few_outer<1>(a);
  if (a.rows == 2) return few_outer<few<2>>(a);
  if (a.rows == 3) return few_outer<few<3>>(a);
  few_outer<few<4>>(a);
}

}  // namespace
}  // namespace fastrnn
