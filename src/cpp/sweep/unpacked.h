// A step of a few rows by weights as torch has them, each row an output: for who may not keep packed ones, as the
// weights may have changed, and would read them only once. Their squares are transposed in registers on the way into
// the same chains of FMAs, so the bits are those of packed weights.
#pragma once

#include "simd/square.h"
#include "sweep/row.h"

namespace fastrnn {
namespace {

// Elements of a cache line: so many outputs are multiplied at once, and so many columns of their rows read at once.
template <class T>
constexpr int kLine = 64 / int(sizeof(T));

// Sums of a line of outputs for R rows, in registers. With 512 bits that is one vector and one chain a row, which the
// vector's own shuffles hide. Zen 4, weights in the caches, one row / four, GB/s: so 53 / 37, two vectors of 256 bits
// 47 / 26, two of 512 bits 45 / 20.
template <class T, int R, bool InOrder>
struct LineSums {
  static constexpr int L = kLanes<T>, vectors = kLine<T> / L;
  const T* w;         // [kLine, depth]
  const T* const* x;  // [R] of [depth]
  int depth;
  vec<T> sums[vectors][R];

  FASTRNN_INLINE void add_column(int v, int r, int k, vec<T> column) {
    sums[v][r] = fma(column, broadcast(x[r][k]), sums[v][r]);
  }
  // Columns [k, k + L) of the rows of vector v.
  FASTRNN_INLINE void add_square(int v, int k) {
    vec<T> columns[L];
    load_square<InOrder>(w + ptrdiff_t(v) * L * depth + k, depth, columns);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) add_column(v, r, k + i, columns[i]);
    }
  }
  FASTRNN_INLINE void add_single(int v, int k) {
    vec<T> column;
    for (int j = 0; j < L; ++j) column[j] = w[ptrdiff_t(v * L + j) * depth + k];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) add_column(v, r, k, column);
  }
  // A line of columns. Meanwhile as much of the next outputs' rows is prefetched, in the order of memory: the machine
  // sees a stream for each output, which ends after `depth`. Weights of 16 MB 30 to 37 GB/s, in the caches the same.
  // (Behind the last output it asks for what is none of ours, and is not read.)
  FASTRNN_INLINE void add_line(int k) {
    const T* const next = w + ptrdiff_t(depth + k) * kLine<T>;
#pragma GCC unroll 16
    for (int i = 0; i < kLine<T>; ++i) __builtin_prefetch(next + i * kLine<T>, 0, 2);
#pragma GCC unroll 16
    for (int i = 0; i < vectors * vectors; ++i) add_square(i / vectors, k + i % vectors * L);
  }
};

// sums[r] [kLine] += W x[r], for rows of W [kLine, depth].
template <int R, bool InOrder, class T>
[[gnu::noinline]] void add_product(const T* w, int depth, const T* const* x, T* const* sums) {
  using Sums = LineSums<T, R, InOrder>;
  constexpr int L = Sums::L, vectors = Sums::vectors;
  Sums s{w, x, depth, {}};
#pragma GCC unroll 16
  for (int i = 0; i < vectors * R; ++i) s.sums[i / R][i % R] = load(sums[i % R] + i / R * L);
  int k = 0;
  for (; k + kLine<T> <= depth; k += kLine<T>) s.add_line(k);
  for (; k + L <= depth; k += L) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) s.add_square(v, k);
  }
  for (; k < depth; ++k) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) s.add_single(v, k);
  }
#pragma GCC unroll 16
  for (int i = 0; i < vectors * R; ++i) store(sums[i % R] + i / R * L, s.sums[i / R][i % R]);
}

// Rows for which it pays: 16 registers do not keep the sums of four. Zen 4, four rows, one thread, time over that with
// packed weights and their fingerprint: AVX2 LSTM H256 1.09, GRU H512 1.27; AVX-512 0.94 and 0.87.
constexpr int kUnpackedRows = FASTRNN_VECTOR_BYTES == 64 ? 4 : 2;

template <bool InOrder, class T, int... I>
FASTRNN_INLINE void add_product_by_rows(int rows, const T* w, int depth, const T* const* x, T* const* sums,
                                        Lanes<I...>) {
  constexpr decltype(&add_product<1, InOrder, T>) of[] = {add_product<I + 1, InOrder, T>...};
  of[rows - 1](w, depth, x, sums);
}

// The same for 1 to kUnpackedRows rows. Rows of W a multiple of 4 KB long have their lines in one set of the
// first-level cache, which loses them half read unless they are read in order. Zen 4, one row, us: RNN H1024 291 / 241
// so; but H1008 168 / 186, GRU H256 43 / 46.
template <class T>
FASTRNN_INLINE void add_product_of(int rows, const T* w, int depth, const T* const* x, T* const* sums) {
  constexpr typename FirstLanes<kUnpackedRows>::type each{};
  const bool share_set = depth % (4096 / int(sizeof(T))) == 0;
  if (FASTRNN_VECTOR_BYTES == 64 && share_set) return add_product_by_rows<true>(rows, w, depth, x, sums, each);
  add_product_by_rows<false>(rows, w, depth, x, sums, each);
}

// A cache line of units. The last one, where H is no whole number of lines, is multiplied as the last kLine units there
// are; those that are known already are left out of the equations.
template <class Cell, class T>
FASTRNN_INLINE void unpacked_units(const ForwardTask<T>& a, const RowStep<T>* rows, int count, int line) {
  constexpr int A = Cell::accumulators, L = kLanes<T>;
  const int unit = line * kLine<T>, end = unit + kLine<T> < a.hidden ? unit + kLine<T> : a.hidden;
  const int first = end - kLine<T>;
  alignas(64) T sums[kUnpackedRows][A][2 * kLine<T>];  // a line, and zeros: the last vector of units may end behind it
  const T *x[kUnpackedRows], *h_prev[kUnpackedRows];
  for (int r = 0; r < count; ++r) {
    x[r] = rows[r].x, h_prev[r] = rows[r].h_prev;
    for (int g = 0; g < A; ++g) {
      __builtin_memcpy(sums[r][g], a.bias + g * a.pitch + first, 64);
      __builtin_memset(sums[r][g] + kLine<T>, 0, 64);
    }
  }
  const auto add = [&](auto gates, const T* w, int depth, const T* const* in) {
    using G = decltype(gates);
    for (int g = 0; g < G::count; ++g) {
      T* to[kUnpackedRows];
      for (int r = 0; r < count; ++r) to[r] = sums[r][G::index[g]];
      add_product_of(count, w + (ptrdiff_t(g) * a.hidden + first) * depth, depth, in, to);
    }
  };
  add(typename Cell::InputGates{}, a.w, a.input, x);
  add(typename Cell::HiddenGates{}, a.u, a.output, h_prev);
  for (int r = 0; r < count; ++r) {
    for (int j = unit; j < end; j += L) {
      vec<T> block[A];
      for (int g = 0; g < A; ++g) block[g] = load(sums[r][g] + j - first);
      CellForward<vec<T>> s = run_gates<Cell>(a, rows[r], j / L, block);
      run_output<Cell>(a, rows[r], j / L, s);
    }
  }
}

template <class Cell, class T>
void unpacked_step(const ForwardTask<T>& task, const RowStep<T>* rows, int count, int part, int parts) {
  const BlockRange lines((task.hidden + kLine<T> - 1) / kLine<T>, part, parts);
  for (int line = lines.begin; line < lines.end; ++line) unpacked_units<Cell>(task, rows, count, line);
}

}  // namespace
}  // namespace fastrnn
