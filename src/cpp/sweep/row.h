// A row of a step upwards: where its values lie, and its cell's equations for a block of units.
#pragma once

#include "sweep/places.h"

namespace fastrnn {
namespace {

template <class Cell, class T>
FASTRNN_INLINE RowStep<T> row_step(const ForwardTask<T>& a, int64_t step, int place) {
  const Schedule& s = a.schedule;
  const int64_t row = s.first[step] + place;
  RowStep<T> r;
  r.x = a.hoisted ? nullptr : row_at(a.x, s, step, place);
  r.h_prev = step ? row_at(a.y, s, step - 1, place) : a.h0 + ptrdiff_t(s.order[place]) * a.output;
  const int64_t hoisted = (step - a.step_begin) * a.hoisted_rows + place;
  r.start = a.hoisted ? a.hoisted + hoisted * Cell::InputGates::count * a.pitch : a.bias;
  T* const c = a.cell + ptrdiff_t(place) * a.pitch;
  r.c_prev = a.tape_cell && step ? a.tape_cell + (s.first[step - 1] + place) * a.pitch : c;
  r.c = a.tape_cell ? a.tape_cell + row * a.pitch : c;
  r.saved = a.tape_gates ? a.tape_gates + row * Cell::saved * a.pitch : nullptr;
  r.h = a.projection ? a.unprojected + (a.tape_cell ? row : place) * a.pitch : row_at(a.y, s, step, place);
  return r;
}

template <class Cell, class V, class T>
FASTRNN_INLINE void start_row(const ForwardTask<T>& a, const RowStep<T>& r, int block, V* sums) {
  const int unit = block * kLanesOf<V>;
#pragma GCC unroll 4
  for (int g = 0; g < Cell::accumulators; ++g) {
    sums[g] = load<V>((g < Cell::InputGates::count ? r.start : a.bias) + g * a.pitch + unit);
  }
}

// Onto the tape, where there is one: the vectors of `Which`, a bit each.
template <class Cell, unsigned Which, class V, class T>
FASTRNN_INLINE void store_saved(const ForwardTask<T>& a, const RowStep<T>& r, int block, const CellForward<V>& s) {
  if (Which == 0 || Cell::saved == 0 || !r.saved) return;
#pragma GCC unroll 4
  for (int g = 0; g < Cell::saved; ++g) {
    if (Which >> g & 1) store(r.saved + g * a.pitch + block * kLanesOf<V>, s.saved[g]);
  }
}

// A cell's equations up to c, and what is kept of them.
template <class Cell, class V, class T>
FASTRNN_INLINE CellForward<V> run_gates(const ForwardTask<T>& a, const RowStep<T>& r, int block, const V* sums) {
  const int unit = block * kLanesOf<V>;
  CellForward<V> s;
  if constexpr (Cell::has_cell_state) s.c_prev = load<V>(r.c_prev + unit);
  Cell::gates(sums, s);
  if constexpr (Cell::has_cell_state) store(r.c + unit, s.c);
  store_saved<Cell, ~Cell::saved_by_output>(a, r, block, s);
  return s;
}

// The others: h.
template <class Cell, class V, class T>
FASTRNN_INLINE void run_output(const ForwardTask<T>& a, const RowStep<T>& r, int block, CellForward<V>& s) {
  const int unit = block * kLanesOf<V>, lanes = lanes_in<V>(a.hidden, block);
  if constexpr (Cell::reads_h_prev) s.h_prev = load_first<V>(r.h_prev + unit, lanes);
  Cell::output(s);
  store_saved<Cell, Cell::saved_by_output>(a, r, block, s);
  store_first(r.h + unit, s.h, a.projection ? kLanesOf<V> : lanes);
}

}  // namespace
}  // namespace fastrnn
