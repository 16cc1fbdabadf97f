// Weight gradients of a few rows: each row of c is written once, as a run of memory.
#pragma once

#include "gemm/few_rows.h"

namespace fastrnn {
namespace {

// Gradients of weights larger than this go past the caches (`store_past`): they do not stay there until somebody reads
// them. Backward of a single step of four rows and SGD's step, Zen 4 (32 MB), one thread and two, time over that with
// ordinary stores, by megabytes: 2 (RNN H512) 1.40 and 3.7; 4.7 1.01 and 1.12; 6.3 (GRU H512) 0.96 and 0.97; 8.4 (LSTM
// H512, RNN H1024) 0.65 to 0.79 and 0.77 to 0.98; 25 (GRU H1024) 0.74 and 0.90; 34 0.76 and 0.80.
constexpr size_t kMostCached = size_t(6) << 20;

template <class T>
bool past_caches(const OuterTask<T>& a, const OuterRight<T>& right) {
  const size_t row = size_t(right.columns) * sizeof(T);
  return a.bytes > kMostCached && !a.add && (uintptr_t(right.c) | row) % FASTRNN_VECTOR_BYTES == 0;
}

// Whole vectors of columns of M rows of c: [R] rows of b times their factors, which stay in registers. R is 0 where
// there are more: `rows`, whose factors are read again for each vector.
template <int R, int M, class T>
FASTRNN_INLINE void gradient_vectors(const T (*values)[M], [[maybe_unused]] int rows, const T* b, int columns,
                                     T* const* c, bool past) {
  [[maybe_unused]] vec<T> factors[R + 1][M];
#pragma GCC unroll 16
  for (int i = 0; i < R * M; ++i) factors[i / M][i % M] = broadcast(values[i / M][i % M]);
  for (int j = 0; j < columns; j += kLanes<T>) {
    vec<T> sums[M] = {};
#pragma GCC unroll 4
    for (int r = 0; r < (R ? R : rows); ++r) {
      const vec<T> right = load(b + r * Strip<T>::kElements + j);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) sums[i] = fma(R ? factors[r][i] : broadcast(values[r][i]), right, sums[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) store(c[i] + j, sums[i], past);
  }
}

// The last columns, fewer than a vector has lanes.
template <int R, int M, class T>
[[gnu::noinline]] void gradient_last(const T (*values)[M], int rows, const T* b, int columns, T* const* c) {
  alignas(64) T last[M][kLanes<T>];
  T* to[M];
  for (int i = 0; i < M; ++i) to[i] = last[i];
  gradient_vectors<R>(values, rows, b, kLanes<T>, to, false);
  for (int i = 0; i < M; ++i) __builtin_memcpy(c[i], last[i], size_t(columns) * sizeof(T));
}

// Rows [m, m + M) of c as far as the task's, and columns [begin, begin + columns), which b has. Behind the end the last
// row is written again.
template <int R, int M, class T>
FASTRNN_INLINE void gradient_rows(const OuterTask<T>& a, const OuterRight<T>& right, const Strip<T>& strip, int m,
                                  int begin, int columns, bool past) {
  const int whole = columns / kLanes<T> * kLanes<T>, rows = R ? R : a.rows;
  T values[R ? R : kFewRows][M], *c[M];
  for (int i = 0; i < M; ++i) {
    const int row = m + i < a.row_end ? m + i : a.row_end - 1;
    const T* const from = a.a + a.gate_column[row / a.hidden] + row % a.hidden;
    for (int r = 0; r < rows; ++r) values[r][i] = from[r * a.a_step];
    c[i] = right.c + ptrdiff_t(row) * right.columns + begin;
  }
  gradient_vectors<R>(values, rows, strip.row(0), whole, c, past);
  if (whole == columns) return;
  for (int i = 0; i < M; ++i) c[i] += whole;
  gradient_last<R>(values, rows, strip.row(0) + whole, columns - whole, c);
}

template <int R, class T>
void few_outer_strip(const OuterTask<T>& a, const OuterRight<T>& right, int begin, int columns) {
  constexpr int M = R == 3 || R == 4 ? 2 : 4;
  const Strip<T> b(a.scratch, right.c + ptrdiff_t(a.row_begin) * right.columns + begin);
  for (int r = 0; r < a.rows; ++r) {
    __builtin_memcpy(b.row(r), right.b[r] + begin, size_t(columns) * sizeof(T));
    for (int j = columns; j % kLanes<T>; ++j) b.row(r)[j] = 0;  // multiplied, and not kept
  }
  const bool past = past_caches(a, right);
  for (int m = a.row_begin; m < a.row_end; m += M) gradient_rows<R, M>(a, right, b, m, begin, columns, past);
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

// Of gradients below kLeastByGroups one group: training T16 B1 H32, AVX-512, by more of them 1.02 to 1.08.
template <class T>
bool suits_few_rows(const OuterTask<T>& a) {
  return a.rows >= 1 && !a.add && a.rows <= (a.bytes < kLeastByGroups ? kGroupRows : kFewRows);
}

// An OuterTask of few rows that does not add.
template <class T>
void few_outer(const OuterTask<T>& a) {
  if (a.rows > kGroupRows) return few_outer<0>(a);
  if (a.rows == 1) return few_outer<1>(a);
  if (a.rows == 2) return few_outer<few<2>>(a);
  if (a.rows == 3) return few_outer<few<3>>(a);
  few_outer<few<4>>(a);
}

}  // namespace
}  // namespace fastrnn
