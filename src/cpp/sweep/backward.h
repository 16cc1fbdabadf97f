// Steps downwards: dh from the step after, through the cell, into dgates.
#pragma once

#include "sweep/places.h"

namespace fastrnn {
namespace {

template <class Cell, class T>
struct BackwardPhase;

// From dh: dgates of one vector of units, and the carry for the step before.
template <class Cell, class T>
void through_cell(const BackwardPhase<Cell, T>& phase, vec<T> dh, int place, int block);

// dh, from the step after or for rows that end here from the caller, and on through the cell unless a projection lies
// between.
template <class Cell, class T>
struct BackwardPhase {
  static constexpr int accumulators = 1, vectors = 1;
  using HiddenGates = typename Cell::HiddenGates;
  const BackwardTask<T>& a;
  const Share& share;
  int64_t step;    // -1: before the first step, only dh is wanted
  int skip;        // rows of the share that come before
  bool ends_here;  // the rows' last step

  T* dgates(int64_t s, int place) const {
    const int64_t row = a.schedule.first[s] - a.schedule.first[a.step_begin] + place;
    return a.dgates + row * Cell::accumulators * a.pitch;
  }

  void tile(int row, int height, int block, int width, const Coming& coming) const {
    constexpr int L = kLanes<T>;
    const int first = share.row_begin + (row + skip) * share.row_stride;
    vec<T> sums[kMostSums];
    if (ends_here) {
      each_sum(height, width, [&](int i, int r, int b) {
        sums[i] = load(a.dstate + ptrdiff_t(first + r * share.row_stride) * a.output_pitch + (block + b) * L);
      });
    } else {
      multiply_dgates(first, height, block, width, coming, sums);
    }
    each_sum(height, width, [&](int i, int r, int b) { finish(sums[i], first + r * share.row_stride, block + b); });
  }

  void multiply_dgates(int first, int height, int block, int width, const Coming& coming, vec<T>* sums) const {
    const ptrdiff_t segment = ptrdiff_t(a.hidden) * kLanes<T>, panel = segment * HiddenGates::count;
    Operand<T> ops[HiddenGates::count];
    const T* ahead[kMaxRows * kReads];
    const int reads = step < 0 ? 0 : will_read(first, height, block * kLanes<T>, ahead);
    for (int g = 0; g < HiddenGates::count; ++g) {
      for (int r = 0; r < height; ++r)
        ops[g].rows[r] = dgates(step + 1, first + r * share.row_stride) + HiddenGates::index[g] * a.pitch;
      ops[g].weights(a.ut + g * segment, panel, a.hidden, block, coming);
      const int begin = reads * g / HiddenGates::count;
      ops[g].ahead = ahead + begin, ops[g].aheads = reads * (g + 1) / HiddenGates::count - begin;
    }
    kPlainTiles<T>.at[height][width](kFromZero<T>, ops, HiddenGates::count, sums);
  }

  // What is read once the tile is done, a vector of each for every block. It lies kilobytes apart, where no hardware
  // prefetcher sees a pattern, so the tile prefetches it, a part before each gate's product. LSTM T100, the sweep
  // alone, ms: B64 H256 18.3 to 17.5, B16 H256 4.4 to 4.1 (Zen 4, into the first level); the gates alone, at once
  // before the tile: nothing. (h as well, which GRU and RNN read: nothing for GRU, RNN 10 % slower.)
  static constexpr int kReads = Cell::saved + Cell::has_cell_state + 1;
  int will_read(int first, int height, int unit, const T** ahead) const {
    int n = 0;
    for (int r = 0; r < height; ++r) {
      const int place = first + r * share.row_stride;
      if (!a.projection_t) n += cell_will_read(place, unit, ahead + n);
      if (a.dy.data) ahead[n++] = row_at(a.dy, a.schedule, step, place) + unit;
    }
    return n;
  }
  int cell_will_read(int place, int unit, const T** ahead) const {
    int n = 0;
    const T* const gates = a.tape_gates + (a.schedule.first[step] + place) * Cell::saved * a.pitch + unit;
    for (int g = 0; g < Cell::saved; ++g) ahead[n++] = gates + g * a.pitch;
    if (Cell::has_cell_state && step) ahead[n++] = a.tape_cell + (a.schedule.first[step - 1] + place) * a.pitch + unit;
    return n;
  }

  FASTRNN_INLINE void finish(vec<T> dh, int place, int block) const {
    const int unit = block * kLanes<T>, lanes = lanes_of<T>(a.output, block);
    if constexpr (Cell::carries_dh) dh = dh + load(a.carry + ptrdiff_t(place) * a.pitch + unit);
    if (step < 0) return store(a.dstate + ptrdiff_t(place) * a.output_pitch + unit, dh);
    if (a.dy.data) dh = dh + load_first(row_at(a.dy, a.schedule, step, place) + unit, lanes);
    if (a.projection_t) {
      const int64_t row = a.schedule.first[step] - a.schedule.first[a.step_begin] + place;
      store(a.dprojected + row * a.output_pitch + unit, dh);
    } else {
      through_cell(*this, dh, place, block);
    }
  }
};

template <class Cell, class T>
void through_cell(const BackwardPhase<Cell, T>& phase, vec<T> dh, int place, int block) {
  const BackwardTask<T>& a = phase.a;
  const int unit = block * kLanes<T>, lanes = lanes_of<T>(a.hidden, block);
  const int64_t step = phase.step, row = a.schedule.first[step] + place;
  const Rows<const T>& y = a.y;
  CellBackward<vec<T>> s;
  s.dh = dh;
  for (int g = 0; g < Cell::saved; ++g) s.saved[g] = load(a.tape_gates + (row * Cell::saved + g) * a.pitch + unit);
  if constexpr (Cell::reads_h) s.h = load_first(row_at(y, a.schedule, step, place) + unit, lanes);
  if constexpr (Cell::reads_h_prev) {
    const T* const h = step ? row_at(y, a.schedule, step - 1, place) : row_of(a.h0, a.schedule.order[place]);
    s.h_prev = load_first(h + unit, lanes);
  }
  constexpr bool carries = Cell::has_cell_state || Cell::carries_dh;
  T* const carry = carries ? a.carry + ptrdiff_t(place) * a.pitch + unit : nullptr;
  if constexpr (Cell::has_cell_state) {
    s.c = load(a.tape_cell + row * a.pitch + unit);
    s.c_prev = load(unit + (step ? a.tape_cell + (a.schedule.first[step - 1] + place) * a.pitch
                                 : row_of(a.c0, a.schedule.order[place])));
    s.carry = load(carry);
  }
  Cell::backward(s);
  if constexpr (carries) store(carry, s.carry);
  T* const out = phase.dgates(step, place) + unit;
  for (int g = 0; g < Cell::accumulators; ++g) store(out + g * a.pitch, s.dgates[g]);
}

// dh before the projection: dh W_hr, then the cell.
template <class Cell, class T>
struct UnprojectPhase {
  static constexpr int accumulators = 1, vectors = 1;
  const BackwardPhase<Cell, T>& phase;

  void tile(int row, int height, int block, int width, const Coming& coming) const {
    const BackwardTask<T>& a = phase.a;
    const int stride = phase.share.row_stride, first = phase.share.row_begin + row * stride;
    const int64_t base = a.schedule.first[phase.step] - a.schedule.first[a.step_begin];
    vec<T> sums[kMostSums];
    const T* ahead[kMaxRows * BackwardPhase<Cell, T>::kReads];
    Operand<T> op;
    op.ahead = ahead;
    for (int r = 0; r < height; ++r) {
      op.rows[r] = a.dprojected + (base + first + r * stride) * a.output_pitch;
      op.aheads += phase.cell_will_read(first + r * stride, block * kLanes<T>, ahead + op.aheads);
    }
    op.weights(a.projection_t, ptrdiff_t(a.output) * kLanes<T>, a.output, block, coming);
    kPlainTiles<T>.at[height][width](kFromZero<T>, &op, 1, sums);
    each_sum(height, width, [&](int i, int r, int b) { through_cell(phase, sums[i], first + r * stride, block + b); });
  }
};

// Steps [step_begin, step_end) downwards; when step_begin is 0, and it is wanted, also dh before the first step.
template <class Cell, class T>
void backward_sweep(const BackwardTask<T>& task, const Share& share, int64_t steps) {
  const BlockRange hidden(blocks_of<T>(task.hidden), share.unit_part, share.unit_parts);
  const BlockRange output(blocks_of<T>(task.output), share.unit_part, share.unit_parts);
  const int64_t first = task.step_begin == 0 && task.to_start ? -1 : task.step_begin;
  for (int64_t step = task.step_end - 1; step >= first; --step) {
    const int go_on = step + 1 < steps ? places(share, live_rows(task.schedule, step + 1)) : 0;
    const bool down = step & 1;
    cover(BackwardPhase<Cell, T>{task, share, step, 0, false}, go_on, output.begin, output.end, down);
    if (step < 0) break;
    const int live = places(share, live_rows(task.schedule, step));
    const BackwardPhase<Cell, T> last{task, share, step, go_on, true};
    cover(last, live - go_on, output.begin, output.end, down);
    meet(share);
    if (task.projection_t) {
      cover(UnprojectPhase<Cell, T>{last}, live, hidden.begin, hidden.end, down);
      meet(share);
    }
  }
  meet(share);
}

}  // namespace
}  // namespace fastrnn
