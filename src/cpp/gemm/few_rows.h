// Products of a few rows, whose time is that of a matrix's bytes: weights are read where they lie, gradients of weights
// are written, once each and in the order of memory.
#pragma once

#include "gemm/blocks.h"
#include "simd/lanes.h"
#include "tasks.h"

namespace fastrnn {
namespace {

// No more rows are few: their factors stay in registers.
constexpr int kFewRows = 4;

// part.column(j, lanes) for each vector of some columns, of which the last may have fewer lanes.
template <class T, class Part>
FASTRNN_INLINE void each_column(const Part& part, int columns) {
  constexpr int L = kLanes<T>;
  int j = 0;
  for (; j + L <= columns; j += L) part.column(j, L);
  if (j < columns) part.column(j, columns - j);
}

// Columns whose values stay in the first-level cache while all rows of a matrix go by.
template <class T>
constexpr int kStrip = 4096 / int(sizeof(T));

// Some rows of them. Where they lie counts. Rows of a matrix are often a multiple of 4 KB apart: together with four
// rows that are, too, they fill a set of the cache. And a load waits for a store of a few steps ago whose address is
// the same modulo 4 KB: 1 KB behind the matrix there is none, where its rows are 1 KB and more apart. Weights of 4 MB
// with 1,024 columns, four rows, Zen 4, us: rows 4 KB apart 78 to 206, by chance; 4 KB and 256 bytes 72 to 104; so 73.
template <class T>
class Strip {
 public:
  // beside: where the part of the matrix lies.
  explicit Strip(const T* beside) {
    const uintptr_t shift = uintptr_t(beside) + 1024 - uintptr_t(memory_);
    first_ = memory_ + shift % kPage / kCacheLine * kCacheLine;
  }
  Strip(const Strip&) = delete;
  T* row(int r) { return reinterpret_cast<T*>(first_ + r * kRow); }
  const T* row(int r) const { return reinterpret_cast<const T*>(first_ + r * kRow); }

 private:
  static constexpr ptrdiff_t kPage = 4096, kCacheLine = 64, kRow = kPage + 256;
  alignas(kCacheLine) char memory_[kPage + kFewRows * kRow];
  char* first_;
};

// K rows of weights, each times a value of R rows, onto the sums.
template <int R, int K, class T>
struct WeightRows {
  const T* w;
  ptrdiff_t step;  // from one row of w to the next
  Strip<T>& strip;
  vec<T> factors[R][K];

  FASTRNN_INLINE void column(int j, int lanes) const {
    vec<T> rows[K];
#pragma GCC unroll 8
    for (int i = 0; i < K; ++i) rows[i] = load_first(w + i * step + j, lanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      vec<T> sum = load(strip.row(r) + j);
#pragma GCC unroll 8
      for (int i = 0; i < K; ++i) sum = fma(rows[i], factors[r][i], sum);
      store(strip.row(r) + j, sum);
    }
  }
};

// Of rows of weights that begin at w, one for each of K values of R rows.
template <int R, int K, class T>
FASTRNN_INLINE void add_weight_rows(const T* w, ptrdiff_t step, const T* const* in, int k, int columns,
                                    Strip<T>& strip) {
  WeightRows<R, K, T> rows{w, step, strip, {}};
#pragma GCC unroll 16
  for (int i = 0; i < R * K; ++i) rows.factors[i / K][i % K] = broadcast(in[i / K][k + i % K]);
  each_column<T>(rows, columns);
}

// Columns [begin, begin + columns) of the products of R rows.
template <int R, class T>
void unpacked_strip(const ProductTask<T>& a, int row, int begin, int columns) {
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
  for (int r = 0; r < R; ++r) {
    T* const out = a.out[row + r] + begin;
    for (int j = 0; j < columns; ++j) out[j] = a.add ? out[j] + sums.row(r)[j] : sums.row(r)[j];
  }
}

// A ProductTask by weights where they lie: a share's rows, of which there are few, and blocks.
template <class T>
void unpacked_product(const ProductTask<T>& a, int row, int rows, const BlockRange& blocks) {
  constexpr auto of_rows = [](int n) {
    return n == 1   ? unpacked_strip<1, T>
           : n == 2 ? unpacked_strip<2, T>
           : n == 3 ? unpacked_strip<3, T>
                    : unpacked_strip<4, T>;
  };
  const int end = blocks.end * kLanes<T> < a.outputs ? blocks.end * kLanes<T> : a.outputs;
  for (int begin = blocks.begin * kLanes<T>; begin < end; begin += kStrip<T>) {
    of_rows(rows)(a, row, begin, end - begin < kStrip<T> ? end - begin : kStrip<T>);
  }
}

// M rows of c side by side, from as many columns of R rows of a and some of b.
template <int R, int M, class T>
struct GradientRows {
  const Strip<T>& b;
  T* c;            // [M, step]
  ptrdiff_t step;  // from one row of c to the next
  bool add;
  vec<T> factors[R][M];

  FASTRNN_INLINE void column(int j, int lanes) const {
    vec<T> right[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) right[r] = load(b.row(r) + j);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      vec<T> sum = {};
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum = fma(factors[r][m], right[r], sum);
      T* const out = c + m * step + j;
      store_first(out, add ? load_first(out, lanes) + sum : sum, lanes);
    }
  }
};

// Rows [m, m + M) of c, within one gate, and columns [begin, begin + columns), which b has.
template <int R, int M, class T>
FASTRNN_INLINE void gradient_rows(const OuterTask<T>& a, const OuterRight<T>& right, const Strip<T>& b, int m,
                                  int begin, int columns) {
  const T* const from = a.a + a.gate_column[m / a.hidden] + m % a.hidden;
  GradientRows<R, M, T> rows{b, right.c + ptrdiff_t(m) * right.columns + begin, right.columns, a.add, {}};
#pragma GCC unroll 16
  for (int i = 0; i < R * M; ++i) rows.factors[i / M][i % M] = broadcast(from[i / M * a.a_step + i % M]);
  each_column<T>(rows, columns);
}

template <int R, class T>
void few_outer_strip(const OuterTask<T>& a, const OuterRight<T>& right, int begin, int columns) {
  constexpr int M = R <= 2 ? 4 : 2;
  Strip<T> b(right.c + ptrdiff_t(a.row_begin) * right.columns + begin);
  for (int r = 0; r < R; ++r) {
    __builtin_memcpy(b.row(r), right.b[r] + begin, size_t(columns) * sizeof(T));
    for (int j = columns; j % kLanes<T>; ++j) b.row(r)[j] = 0;
  }
  for (int m = a.row_begin; m < a.row_end;) {
    const int gate_end = (m / a.hidden + 1) * a.hidden, end = gate_end < a.row_end ? gate_end : a.row_end;
    for (; m + M <= end; m += M) gradient_rows<R, M>(a, right, b, m, begin, columns);
    for (; m < end; ++m) gradient_rows<R, 1>(a, right, b, m, begin, columns);
  }
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

// An OuterTask of few rows; its scratch is not used.
template <class T>
void few_outer(const OuterTask<T>& a) {
  if (a.rows == 1) return few_outer<1>(a);
  if (a.rows == 2) return few_outer<2>(a);
  if (a.rows == 3) return few_outer<3>(a);
  few_outer<4>(a);
}

}  // namespace
}  // namespace fastrnn
