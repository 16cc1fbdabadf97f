// Where the values of rows lie, from step to step upwards.
#pragma once

#include "sweep/places.h"

namespace fastrnn {
namespace {

constexpr int kMostRows = 16 * kMaxRows;  // whose pointers are known at once

template <class Cell, class T>
FASTRNN_INLINE RowStep<T> row_step(const ForwardTask<T>& a, int64_t step, int place) {
  const Schedule& s = a.schedule;
  const int64_t row = s.first[step] + place;
  RowStep<T> r;
  r.x = a.hoisted ? nullptr : row_at(a.x, s, step, place);
  r.h_prev = step ? row_at(a.y, s, step - 1, place) : row_of(a.h0, s.order[place]);
  const int64_t hoisted = (step - a.step_begin) * a.hoisted_rows + place;
  r.start = a.hoisted ? a.hoisted + hoisted * Cell::InputGates::count * a.pitch : a.bias;
  r.c = a.tape_cell ? a.tape_cell + row * a.pitch : row_of(a.cell, s.order[place]);
  r.c_prev = step == 0     ? row_of(a.c0, s.order[place])
             : a.tape_cell ? a.tape_cell + (s.first[step - 1] + place) * a.pitch
                           : r.c;
  r.saved = a.tape_gates ? a.tape_gates + row * Cell::saved * a.pitch : nullptr;
  r.h = a.projection ? a.unprojected + (a.tape_cell ? row : place) * a.pitch : row_at(a.y, s, step, place);
  return r;
}

// How far an array's rows move from a step, at which so many live, to the next. (Not of packed arrays walked in
// reverse: there each row has its own distance.)
template <class T>
FASTRNN_INLINE ptrdiff_t to_next_step(const Rows<T>& rows, const Schedule& s, ptrdiff_t live) {
  return rows.packed ? live * rows.row : s.reverse ? -rows.step : rows.step;
}

// The rows of a share, step after step. Most of the time all pointers move by the same distances: a few additions,
// where row_step takes 20 cycles a row. T100 B16 on one thread, time over that, Emerald Rapids: LSTM H8 0.83, H20 0.95,
// GRU H20 0.92, RNN H20 0.89, H32 0.88; H64 and more the same. (The same for the sweep downwards was 80 lines more:
// training LSTM H16 0.99, H20 0.98, RNN H32 0.97.)
template <class Cell, class T>
class RowWalk {
 public:
  RowWalk(const ForwardTask<T>& task, const Share& share)
      : a_(task),
        share_(share),
        moves_evenly_(!task.projection &&
                      !(task.schedule.reverse && ((task.x.packed && !task.hoisted) || task.y.packed))) {}

  // visit(rows, how many) for the first n rows of the share at a step. Steps come one after the other.
  template <class Visit>
  FASTRNN_INLINE void each(int64_t step, int n, Visit visit) {
    for (int begin = 0; begin < n; begin += kMostRows) {
      const int group = n - begin < kMostRows ? n - begin : kMostRows;
      visit(at(step, begin, group), group);
    }
  }

  // The rows [begin, begin + n), n <= kMostRows; with begin 0 once at every step.
  FASTRNN_INLINE const RowStep<T>* at(int64_t step, int begin, int n) {
    if (begin == 0 && n <= known_ && moves_evenly_) {
      move_on(step, n);
    } else {
      for (int r = 0; r < n; ++r) {
        rows_[r] = row_step<Cell>(a_, step, share_.row_begin + (begin + r) * share_.row_stride);
      }
    }
    known_ = begin == 0 ? n : 0;
    return rows_;
  }

 private:
  FASTRNN_INLINE void move_on(int64_t step, int n) {
    const ptrdiff_t live = live_rows(a_.schedule, step - 1), tape = live * a_.pitch;
    const ptrdiff_t x = a_.hoisted ? 0 : to_next_step(a_.x, a_.schedule, live),
                    y = to_next_step(a_.y, a_.schedule, live);
    const ptrdiff_t start = a_.hoisted ? a_.hoisted_rows * Cell::InputGates::count * a_.pitch : 0;
    for (int i = 0; i < n; ++i) {
      RowStep<T>& r = rows_[i];
      r.x += x, r.start += start;
      r.h_prev = r.h, r.h += y;
      r.c_prev = r.c;
      if (a_.tape_cell) r.c += tape;
      if (a_.tape_gates) r.saved += tape * Cell::saved;
    }
  }

  const ForwardTask<T>& a_;
  const Share& share_;
  const bool moves_evenly_;
  int known_ = 0;  // so many of rows_ are the first of the share, at the step before
  RowStep<T> rows_[kMostRows];
};

}  // namespace
}  // namespace fastrnn
