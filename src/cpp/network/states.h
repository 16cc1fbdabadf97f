// The states of a sweep: where rows find them before they begin, and have them at their end. What has to be copied is
// copied by the threads that have the rows, in whose caches it lies or will be needed.
#pragma once

#include <algorithm>

#include "network/call.h"
#include "network/config.h"
#include "network/schedule.h"
#include "network/share.h"
#include "network/tape.h"

namespace fastrnn {

// visit(batch row, place) for a thread's part of the rows: the share's, or, of threads that share units, one of equal
// parts.
template <class Visit>
void each_own_row(const RowOrder& order, const Share& share, Visit visit) {
  const Range mine = share.unit_parts > 1 ? part_of(order.batch(), share.unit_part, share.unit_parts)
                                          : Range{share.row_begin, share.row_end};
  for (int place = int(mine.begin); place < mine.end; place += share.row_stride) visit(order.row(place), place);
}

// Zeros behind the end of each row: [T, B, width]; packed rows have nothing there.
template <class T>
void clear_past_end(const RowOrder& order, const Share& share, const Rows<T>& rows, int width) {
  if (!order.ragged() || rows.packed) return;
  each_own_row(order, share, [&](int row, int place) {
    for (int64_t time = order.length(place); time < order.steps(); ++time) {
      std::fill_n(rows.data + time * rows.step + row * rows.row, width, T(0));
    }
  });
}

// A row of a state of the caller's, null: zeros, with zeros behind it, into row i of a copy, null: none is wanted.
template <class T>
void copy_row(const T* from, int n, T* copy, int i, int pitch) {
  if (!copy) return;
  T* const to = copy + ptrdiff_t(i) * pitch;
  if (from) std::copy_n(from, n, to);
  std::fill(to + (from ? n : 0), to + pitch, T(0));
}

// A row of a state to where it is wanted, unless it lies there: hn of a single step may be y itself, and cn is where c
// is carried.
template <class T>
void copy_unless_there(const T* from, int n, T* to) {
  if (from != to) std::copy_n(from, n, to);
}

// Of a pass forward.
template <class T>
class States {
 public:
  States(const Config& config, const Tape<T>& tape, int sweep)
      : config_(config), tape_(tape), trace_(tape.sweeps[size_t(sweep)]), caller_{sweep, tape.order.batch()} {}

  // Before the first step. Threads that share units read each other's rows then.
  void begin(const Share& share) const {
    if (!trace_.h0_copy && !trace_.c0_copy) return;
    const int output = config_.output(), hidden = config_.hidden;
    each_own_row(tape_.order, share, [&](int row, int) {
      copy_row(caller_.of(tape_.call.h0, row, output), output, trace_.h0_copy, row, output);
      copy_row(caller_.of(tape_.call.c0, row, hidden), hidden, trace_.c0_copy, row, padded(hidden));
    });
    meet(share);
  }

  // Behind the last step, which all threads have done: h and c at each row's end.
  void end(const Share& share, const Rows<T>& y, const Schedule& s) const {
    const int output = config_.output(), hidden = config_.hidden;
    each_own_row(tape_.order, share, [&](int row, int place) {
      const int last = tape_.order.length(place) - 1;
      const T* const h = last < 0 ? row_of(trace_.h0, row) : row_at(y, s, last, place);
      copy_unless_there(h, output, caller_.of(tape_.call.hn, row, output));
      if (!trace_.c0.data) return;
      const T* const c = last < 0           ? row_of(trace_.c0, row)
                         : trace_.tape_cell ? trace_.tape_cell + (s.first[last] + place) * padded(hidden)
                                            : row_of(trace_.cell, row);
      copy_unless_there(c, hidden, caller_.of(tape_.call.cn, row, hidden));
    });
    clear_past_end(tape_.order, share, y, output);
  }

 private:
  const Config& config_;
  const Tape<T>& tape_;
  const Trace<T>& trace_;
  const SweepRows caller_;
};

// Of a pass back: the gradients of one sweep's states, from the caller's arrays and into them.
template <class T>
class StateGradients {
 public:
  StateGradients(const Config& config, const RowOrder& order, const Gradients<T>& call, int sweep, T* dstate, T* carry)
      : order_(order),
        call_(call),
        dstate_(dstate),
        carry_(carry),
        caller_{sweep, order.batch()},
        output_(config.output()),
        hidden_(config.hidden) {}

  // Before the last step. Threads that share units read each other's rows then.
  void begin(const Share& share) const {
    each_own_row(order_, share, [&](int row, int place) {
      copy_row(caller_.of(call_.dh, row, output_), output_, dstate_, place, padded(output_));
      copy_row(caller_.of(call_.dc, row, hidden_), hidden_, carry_, place, padded(hidden_));
    });
    meet(share);
  }

  // Behind the first step, which all threads have done.
  void end(const Share& share) const {
    each_own_row(order_, share, [&](int row, int place) {
      const ptrdiff_t i = place;
      if (call_.dh0) std::copy_n(dstate_ + i * padded(output_), output_, caller_.of(call_.dh0, row, output_));
      if (call_.dc0) std::copy_n(carry_ + i * padded(hidden_), hidden_, caller_.of(call_.dc0, row, hidden_));
    });
  }

 private:
  const RowOrder& order_;
  const Gradients<T>& call_;
  T* const dstate_;  // [B][padded P]
  T* const carry_;   // [B][pitch], or null
  const SweepRows caller_;
  const int output_, hidden_;
};

}  // namespace fastrnn
