// The sums of a step of a few rows by weights as torch has them, each row an output: for who may not keep packed ones,
// as the weights may have changed, and would read them only once. Their squares are transposed in registers on the way
// into the same chains of FMAs, so the bits are those of packed weights.
#pragma once

#include "gemm/blocks.h"
#include "gemm/few_rows.h"
#include "simd/square.h"
#include "tasks.h"

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
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) add_column(v, r, k + i, columns[i]);
    }
  }
  FASTRNN_INLINE void add_single(int v, int k) {
    T column[L];
    for (int j = 0; j < L; ++j) column[j] = w[ptrdiff_t(v * L + j) * depth + k];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) add_column(v, r, k, load(column));
  }
  // A line of columns. Meanwhile as much of the next outputs' rows is prefetched, in the order of memory: the machine
  // sees a stream for each output, which ends after `depth`. Weights of 16 MB 30 to 37 GB/s, in the caches the same.
  // (Behind the last output it asks for what is none of ours, and is not read.)
  FASTRNN_INLINE void add_line(int k) {
    const T* const next = w + ptrdiff_t(depth + k) * kLine<T>;
#pragma GCC unroll 16
    for (int i = 0; i < kLine<T>; ++i) __builtin_prefetch(next + i * kLine<T>, 0, 2);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 1
      for (int square = 0; square < vectors; ++square) add_square(v, k + square * L);
    }
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

// So many rows' sums fit the registers beside the columns of a square.
constexpr int kSumRows = FASTRNN_VECTOR_BYTES == 64 ? 8 : FASTRNN_VECTOR_BYTES == 32 ? 4 : 1;
template <int Rows>
constexpr int sums_of = Rows < kSumRows ? Rows : kSumRows;

// add_product of `rows` rows, of which the last is there once more where five or seven are multiplied as six or eight.
template <bool InOrder, class T>
FASTRNN_INLINE void add_product_by_rows(int rows, const T* w, int depth, const T* const* x, T* const* sums) {
  if (rows == 1) return add_product<1, InOrder>(w, depth, x, sums);
  if (rows == 2) return add_product<sums_of<2>, InOrder>(w, depth, x, sums);
  if (rows == 3) return add_product<sums_of<3>, InOrder>(w, depth, x, sums);
  if (rows == 4) return add_product<sums_of<4>, InOrder>(w, depth, x, sums);
  if (rows <= 6) return add_product<sums_of<6>, InOrder>(w, depth, x, sums);
  add_product<sums_of<8>, InOrder>(w, depth, x, sums);
}

// Rows of W a multiple of 4 KB long have their lines in one set of the first-level cache, which loses them half read
// unless they are read in order. Zen 4, one thread, us: RNN H1024 291 / 241 so, GRU H1024 of two rows 1,250 / 1,000, of
// four 1,315 / 1,110; but RNN H1008 168 / 186, GRU H256 43 / 46.
template <class T>
FASTRNN_INLINE void add_product_of(int rows, const T* w, int depth, const T* const* x, T* const* sums) {
  const bool share_set = FASTRNN_VECTOR_BYTES == 64 && depth % (4096 / int(sizeof(T))) == 0;
  if (share_set) return add_product_by_rows<true>(rows, w, depth, x, sums);
  add_product_by_rows<false>(rows, w, depth, x, sums);
}

// A line of units in all sums of some rows. The last one, where H is no whole number of lines, is multiplied as the
// last kLine units there are, of which those before `unit` are known already.
template <class T>
FASTRNN_INLINE void unpacked_units(const UnpackedTask<T>& a, int unit) {
  const int end = unit + kLine<T> < a.hidden ? unit + kLine<T> : a.hidden, first = end - kLine<T>;
  alignas(64) T line[kSumRows][kLine<T>];
  const T *x[kSumRows], *h_prev[kSumRows];
  T* lines[kSumRows];
  for (int r = 0; r < kSumRows; ++r) {
    const int row = r < a.count ? r : a.count - 1;
    x[r] = a.rows[row].x, h_prev[r] = a.rows[row].h_prev, lines[r] = line[row];
  }
  for (int g = 0; g < a.accumulators; ++g) {
    const auto add = [&](const T* w, int gate, int depth, const T* const* in) {
      if (gate >= 0) add_product_of(a.count, w + (ptrdiff_t(gate) * a.hidden + first) * depth, depth, in, lines);
    };
    for (int r = 0; r < a.count; ++r) __builtin_memcpy(line[r], a.bias + g * a.pitch + first, sizeof line[r]);
    add(a.w, a.input_gate[g], a.input, x);
    add(a.u, a.hidden_gate[g], a.hidden, h_prev);
    for (int r = 0; r < a.count; ++r) {
      T* const sums = a.sums + (ptrdiff_t(r) * a.accumulators + g) * a.pitch;
      for (int j = unit; j < end; ++j) sums[j] = line[r][j - first];
    }
  }
}

template <class T>
void unpacked_sums(const UnpackedTask<T>& task, int part, int parts) {
  const BlockRange lines((task.hidden + kLine<T> - 1) / kLine<T>, part, parts);
  for (int line = lines.begin; line < lines.end; ++line) unpacked_units(task, line * kLine<T>);
}

}  // namespace
}  // namespace fastrnn
