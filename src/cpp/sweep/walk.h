// Where the values of rows lie, from step to step upwards.
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

// The rows of a share, step after step. Most of the time all of them move on by the same distances: seven additions
// instead of the above, which is 20 cycles a row. One thread, T100 B16, time over that (Emerald Rapids):
template <class Cell, class T>
class RowWalk {
 public:
  static constexpr int most = 16 * kMaxRows;

  RowWalk(const ForwardTask<T>& task, const Share& share)
      : a_(task),
        share_(share),
        even_(!task.projection && !(task.schedule.reverse && (task.x.packed || task.y.packed))) {}

  // The rows [begin, begin + n) of the share at a step, n <= most. Steps come one after the other.
  FASTRNN_INLINE const RowStep<T>* at(int64_t step, int begin, int n) {
    if (begin == 0 && n <= known_ && even_) {
      const ptrdiff_t live = live_rows(a_.schedule, step - 1), tape = live * a_.pitch;
      const ptrdiff_t x = a_.hoisted ? 0 : distance(a_.x, live), y = distance(a_.y, live);
      const ptrdiff_t start = a_.hoisted ? a_.hoisted_rows * Cell::InputGates::count * a_.pitch : 0;
      for (int r = 0; r < n; ++r) {
        RowStep<T>& row = rows_[r];
        row.x += x, row.start += start;
        row.h_prev = row.h, row.h += y;
        row.c_prev = row.c;
        if (a_.tape_cell) row.c += tape;
        if (a_.tape_gates) row.saved += tape * Cell::saved;
      }
    } else {
      for (int r = 0; r < n; ++r) {
        rows_[r] = row_step<Cell>(a_, step, share_.row_begin + (begin + r) * share_.row_stride);
      }
    }
    known_ = begin == 0 ? n : 0;
    return rows_;
  }

 private:
  // From a step's rows, of which so many live, to those of the next.
  template <class Array>
  ptrdiff_t distance(const Array& rows, ptrdiff_t live) const {
    return rows.packed ? live * rows.row : a_.schedule.reverse ? -rows.step : rows.step;
  }

  const ForwardTask<T>& a_;
  const Share& share_;
  const bool even_;
  int known_ = 0;  // the first rows of the share stand at the step before
  RowStep<T> rows_[most];
};

}  // namespace
}  // namespace fastrnn
