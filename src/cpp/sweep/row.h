// A row of a step upwards, or a group of them: its cell's equations for a block of units.
#pragma once

#include "sweep/walk.h"

namespace fastrnn {
namespace {

template <class Cell, class V, class T>
FASTRNN_INLINE void start_row(const ForwardTask<T>& a, const RowStep<T>& r, int block, V* sums) {
  const int unit = block * kLanesOf<V>;
#pragma GCC unroll 4
  for (int g = 0; g < Cell::accumulators; ++g) {
    sums[g] = load<V>((g < Cell::InputGates::count ? r.start : a.bias) + g * a.pitch + unit);
  }
}

// So many rows whose last blocks, parts of a vector, lie side by side in a whole one: one pass through the equations
// for all.
template <class T, int N>
struct RowGroup {
  const RowStep<T>* rows[N];
};

// The type of one row's values: V itself, or a part of it where V holds those of a group of rows.
template <class V, class Row>
struct PartOf {
  using type = V;
};
template <class V, class T, int N>
struct PartOf<V, RowGroup<T, N>> {
  using type = part_vec<T, N>;
};

// The first `lanes` values at place(row), of one row or of each of a group.
template <class V, class T, class Place>
FASTRNN_INLINE V read(const RowStep<T>& r, int lanes, Place place) {
  return load_first<V>(place(r), lanes);
}
template <class V, class T, int N, class Place>
FASTRNN_INLINE V read(const RowGroup<T, N>& r, int lanes, Place place) {
  part_vec<T, N> parts[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) parts[i] = load_first<part_vec<T, N>>(place(*r.rows[i]), lanes);
  return join(parts);
}
template <class V, class T, class Place>
FASTRNN_INLINE void write(const RowStep<T>& r, int lanes, V v, Place place) {
  store_first(place(r), v, lanes);
}
template <class V, class T, int N, class Place>
FASTRNN_INLINE void write(const RowGroup<T, N>& r, int lanes, V v, Place place) {
  part_vec<T, N> parts[N];
  split(v, parts);
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) store_first(place(*r.rows[i]), parts[i], lanes);
}

template <class T>
FASTRNN_INLINE bool on_tape(const RowStep<T>& r) {
  return r.saved;
}
template <class T, int N>
FASTRNN_INLINE bool on_tape(const RowGroup<T, N>& r) {
  return r.rows[0]->saved;
}

// Onto the tape, where there is one: the vectors [Begin, End) of what the cell saves.
template <class Cell, int Begin, int End, class V, class T, class Row>
FASTRNN_INLINE void store_saved(const ForwardTask<T>& a, const Row& r, int unit, const CellForward<V>& s) {
  constexpr int L = kLanesOf<typename PartOf<V, Row>::type>;
  if (Begin == End || !s.on_tape) return;
#pragma GCC unroll 4
  for (int g = Begin; g < End; ++g) {
    write(r, L, s.saved[g], [&](auto& row) { return row.saved + g * a.pitch + unit; });
  }
}

// A cell's equations up to c. Returns what those behind them need.
template <class Cell, class V, class T, class Row>
FASTRNN_INLINE CellForward<V> run_gates(const ForwardTask<T>& a, const Row& r, int block, const V* sums) {
  constexpr int L = kLanesOf<typename PartOf<V, Row>::type>;
  const int unit = block * L;
  CellForward<V> s;
  s.on_tape = on_tape(r);
  if constexpr (Cell::has_cell_state) s.c_prev = read<V>(r, L, [&](auto& row) { return row.c_prev + unit; });
  Cell::gates(sums, s);
  if constexpr (Cell::has_cell_state) write(r, L, s.c, [&](auto& row) { return row.c + unit; });
  store_saved<Cell, 0, Cell::saved - Cell::saved_by_output>(a, r, unit, s);
  return s;
}

// The equations from c to h.
template <class Cell, class V, class T, class Row>
FASTRNN_INLINE void run_output(const ForwardTask<T>& a, const Row& r, int block, CellForward<V>& s) {
  using Part = typename PartOf<V, Row>::type;
  const int unit = block * kLanesOf<Part>, lanes = lanes_in<Part>(a.hidden, block);
  if constexpr (Cell::reads_h_prev) s.h_prev = read<V>(r, lanes, [&](auto& row) { return row.h_prev + unit; });
  s.on_tape = on_tape(r);
  Cell::output(s);
  store_saved<Cell, Cell::saved - Cell::saved_by_output, Cell::saved>(a, r, unit, s);
  write(r, a.projection ? kLanesOf<Part> : lanes, s.h, [&](auto& row) { return row.h + unit; });
}

}  // namespace
}  // namespace fastrnn
