// The recurrent sweep: a loop over time in which every step multiplies with the same packed weights and ends, in
// registers, with the cell's equations. Forward and backward, any cell, any direction of time.
//
//              walks time   multiplies                starts from         ends with
//   forward    up           x[t] by W, h[t-1] by U    the bias            Cell::forward
//   backward   down         dgates[t+1] by U^T        zero, dy[t] is      Cell::backward
//                                                     added at the end
// dy comes last so that dh can be handed over between chunks of time without a change of bits.
#pragma once

#include "gemm/tile.h"

namespace fastrnn {
namespace {

FASTRNN_INLINE int64_t live_rows(const Schedule& s, int64_t step) { return s.first[step + 1] - s.first[step]; }

template <class T>
FASTRNN_INLINE T* at(const Rows<T>& rows, const Schedule& s, int64_t step, int place) {
  const int64_t time = s.reverse ? s.length[place] - 1 - step : step;
  return rows.data + (rows.packed ? s.first[time] * rows.row : time * rows.step) + s.order[place] * rows.row;
}

// The places of a share among the first n: begin, begin + step, ...
FASTRNN_INLINE int places(const Share& share, int64_t n) {
  const int64_t end = n < share.row_end ? n : share.row_end;
  const int64_t span = end - share.row_begin;
  if (span <= 0) return 0;
  return int(share.row_step == 1 ? span : (span + share.row_step - 1) / share.row_step);
}

FASTRNN_INLINE void meet(const Share& share) {
  if (share.wait) share.wait(share.barrier);
}

// ---- forward -------------------------------------------------------------------------------------------------------

template <class Cell, class T>
FASTRNN_INLINE RowStep<T> row_step(const ForwardTask<T>& a, int64_t step, int place) {
  const Schedule& s = a.schedule;
  const int64_t row = s.first[step] + place;
  RowStep<T> r;
  r.x = a.hoisted ? nullptr : at(a.x, s, step, place);
  r.h_prev = step ? at(a.y, s, step - 1, place) : a.h0 + ptrdiff_t(s.order[place]) * a.output;
  const int64_t hoisted = (step - a.step_begin) * a.hoisted_rows + place;
  r.start = a.hoisted ? a.hoisted + hoisted * Cell::InputGates::count * a.pitch : a.bias;
  T* const c = a.cell + ptrdiff_t(place) * a.pitch;
  r.c_prev = a.tape_cell && step ? a.tape_cell + (s.first[step - 1] + place) * a.pitch : c;
  r.c = a.tape_cell ? a.tape_cell + row * a.pitch : c;
  r.saved = a.tape_gates ? a.tape_gates + row * Cell::saved * a.pitch : nullptr;
  r.h = a.projection ? a.unprojected + (a.tape_cell ? row : place) * a.pitch : at(a.y, s, step, place);
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

template <class Cell, class V, class T>
FASTRNN_INLINE void finish_row(const ForwardTask<T>& a, const RowStep<T>& r, int block, const V* sums) {
  const int unit = block * kLanesOf<V>, lanes = lanes_in<V>(a.hidden, block);
  CellForward<V> s;
  if constexpr (Cell::reads_h_prev) s.h_prev = load_first<V>(r.h_prev + unit, lanes);
  if constexpr (Cell::has_cell_state) s.c_prev = load<V>(r.c_prev + unit);
  Cell::forward(sums, s);
  if constexpr (Cell::has_cell_state) store(r.c + unit, s.c);
  if (Cell::saved > 0 && r.saved) {
#pragma GCC unroll 4
    for (int g = 0; g < Cell::saved; ++g) store(r.saved + g * a.pitch + unit, s.saved[g]);
  }
  store_first(r.h + unit, s.h, a.projection ? kLanesOf<V> : lanes);
}

template <class Cell, class V>
struct ForwardPhase {
  using T = element<V>;
  static constexpr int accumulators = Cell::accumulators, A = accumulators;
  const ForwardTask<T>& a;
  const RowStep<T>* rows;

  void tile(int row, int height, int block, int width) const {
    constexpr int W = kLanesOf<V>;
    V sums[kAccumulators];
    Operand<T> ops[2];
    ops[0].depth = a.hoisted ? 0 : a.input;
    ops[0].block_step = ptrdiff_t(a.input) * Cell::InputGates::count * W;
    ops[0].w = a.w + block * ops[0].block_step;
    ops[1].depth = a.output;
    ops[1].block_step = ptrdiff_t(a.output) * Cell::HiddenGates::count * W;
    ops[1].w = a.u + block * ops[1].block_step;
    for (int r = 0; r < height; ++r) ops[0].rows[r] = rows[row + r].x, ops[1].rows[r] = rows[row + r].h_prev;
    for (int i = 0; i < height << width; ++i) {
      start_row<Cell>(a, rows[row + (i >> width)], block + i % (1 << width), sums + i * A);
    }
    kCellTiles<Cell, V>.at[height - 1][width](ops, 2, sums);
    for (int i = 0; i < height << width; ++i) {
      finish_row<Cell>(a, rows[row + (i >> width)], block + i % (1 << width), sums + i * A);
    }
  }
};

// A step of many rows, in groups whose pointers are found once for all blocks of units. Out of line, or its frame is a
// cost of every step of a single row.
template <class Cell, class T>
[[gnu::noinline]] void forward_rows(const ForwardTask<T>& a, const Share& share, int64_t step, int rows,
                                    const UnitBlocks<T>& hidden) {
  constexpr int most = 16 * kMaxRows;
  RowStep<T> group[most];
  for (int begin = 0; begin < rows; begin += most) {
    const int n = rows - begin < most ? rows - begin : most;
    for (int r = 0; r < n; ++r) group[r] = row_step<Cell>(a, step, share.row_begin + (begin + r) * share.row_step);
    hidden.each_width([&](auto vector, int first, int last) {
      cover(ForwardPhase<Cell, decltype(vector)>{a, group}, n, first, last);
    });
  }
}

// One row alone: no other row hides its latencies, so the sums of N blocks never leave the registers.
template <int N, class Cell, class V, class T>
FASTRNN_INLINE void row_blocks(const ForwardTask<T>& a, const RowStep<T>& r, int block) {
  using X = typename Cell::InputGates;
  using H = typename Cell::HiddenGates;
  constexpr int W = kLanesOf<V>, A = Cell::accumulators;
  V sums[N * A], acc[1][N][A];
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) start_row<Cell>(a, r, block + v, sums + v * A);
#pragma GCC unroll 8
  for (int i = 0; i < N * A; ++i) acc[0][i / A][i % A] = sums[i];
  Operand<T> op;
  if (r.x) {
    op.rows[0] = r.x, op.depth = a.input, op.block_step = ptrdiff_t(a.input) * X::count * W;
    op.w = a.w + block * op.block_step;
    multiply<X>(acc, op);
  }
  op.rows[0] = r.h_prev, op.depth = a.output, op.block_step = ptrdiff_t(a.output) * H::count * W;
  op.w = a.u + block * op.block_step;
  multiply<H>(acc, op);
#pragma GCC unroll 8
  for (int i = 0; i < N * A; ++i) sums[i] = acc[0][i / A][i % A];
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) finish_row<Cell>(a, r, block + v, sums + v * A);
}

// The last whole block and the half behind it. Alone the half would wait for its latencies as long as a whole block:
// beside it GRU H20 takes 113 instead of 131 ns, LSTM H20 144 instead of 151 (H40 280 instead of 275).
template <class Cell, class T>
FASTRNN_INLINE void row_end(const ForwardTask<T>& a, const RowStep<T>& r, int block) {
  constexpr int W = kLanes<T>, A = Cell::accumulators;
  vec<T> whole[A];
  half_vec<T> half[A];
  start_row<Cell>(a, r, block, whole);
  start_row<Cell>(a, r, 2 * block + 2, half);
  const auto add = [&](auto gates, const T* row, const T* w, int depth) {
    using G = decltype(gates);
    const T* const panel = w + block * ptrdiff_t(depth) * G::count * W;
    multiply_both<G>(whole, half, row, panel, panel + ptrdiff_t(depth) * G::count * W, depth);
  };
  if (r.x) add(typename Cell::InputGates{}, r.x, a.w, a.input);
  add(typename Cell::HiddenGates{}, r.h_prev, a.u, a.output);
  finish_row<Cell>(a, r, block, whole);
  finish_row<Cell>(a, r, 2 * block + 2, half);
}

// Every other step walks the blocks downwards: weights too large for a cache find there what the step before read last,
// where a walk in one direction finds nothing of what it needs (LSTM H256, two threads: 12.4 -> 11.3 us).
template <class Cell, class T>
[[gnu::noinline]] void forward_row(const ForwardTask<T>& a, const RowStep<T>& r, const UnitBlocks<T>& blocks,
                                   bool down) {
  // Four sums hide the latency of an FMA on one unit. More blocks at once would put off the equations of the first one,
  // which overlap with the product of the next; and eight panels of a power of two share the sets of the first-level cache
  // (RNN H128 T100, one thread: 103 us with eight, 97 with panels a vector longer, 90 with four).
  constexpr int V = Cell::accumulators == 1 ? 4 : 1;
  const bool paired = kHalvesPay && V == 1 && blocks.half >= 0 && blocks.end > blocks.begin;
  const int groups = (blocks.end - blocks.begin) / V - paired;
  for (int i = 0; i < groups; ++i) row_blocks<V, Cell, vec<T>>(a, r, blocks.begin + (down ? groups - 1 - i : i) * V);
  if constexpr (V > 1) {
    for (int block = blocks.begin + groups * V; block < blocks.end; ++block) row_blocks<1, Cell, vec<T>>(a, r, block);
  }
  if constexpr (kHalvesPay) {
    if (paired) return row_end<Cell>(a, r, blocks.end - 1);
    if (blocks.half >= 0) row_blocks<1, Cell, half_vec<T>>(a, r, blocks.half);
  }
}

// One step of one row whose pointers are known: all there is to a stream's step, 100 instructions less than a sweep.
template <class Cell, class T>
void forward_step(const ForwardTask<T>& task, const RowStep<T>& row) {
  forward_row<Cell>(task, row, UnitBlocks<T>(task.hidden, 0, 1), task.odd);
}

// h = W_hr (o tanh(c)): the second phase of a step with projection (Sak, Senior & Beaufays 2014).
template <class T>
struct ProjectionPhase {
  static constexpr int accumulators = 1;
  const ForwardTask<T>& a;
  const Share& share;
  int64_t step;

  void tile(int row, int height, int block, int width) const {
    constexpr int W = kLanes<T>;
    const int first = share.row_begin + row * share.row_step;
    const int64_t base = a.tape_cell ? a.schedule.first[step] : 0;
    vec<T> sums[kAccumulators] = {};
    Operand<T> op;
    for (int r = 0; r < height; ++r) op.rows[r] = a.unprojected + (base + first + r * share.row_step) * a.pitch;
    op.depth = a.hidden;
    op.block_step = ptrdiff_t(a.hidden) * W;
    op.w = a.projection + block * op.block_step;
    kPlainTiles<T>.at[height - 1][width](&op, 1, sums);
    for (int i = 0; i < height << width; ++i) {
      const int v = block + i % (1 << width);
      T* const y = at(a.y, a.schedule, step, first + (i >> width) * share.row_step);
      store_first(y + v * W, sums[i], lanes_of<T>(a.output, v));
    }
  }
};

template <class Cell, class T>
void forward_sweep(const ForwardTask<T>& task, const Share& share) {
  const UnitBlocks<T> hidden(task.hidden, share.unit_part, share.unit_parts);
  const Blocks output(blocks_of<T>(task.output), share.unit_part, share.unit_parts);
  for (int64_t step = task.step_begin; step < task.step_end; ++step) {
    const int rows = places(share, live_rows(task.schedule, step));
    if (rows == 1) {
      forward_row<Cell>(task, row_step<Cell>(task, step, share.row_begin), hidden, (step & 1) != task.odd);
    } else {
      forward_rows<Cell>(task, share, step, rows, hidden);
    }
    meet(share);
    if (task.projection) {
      cover(ProjectionPhase<T>{task, share, step}, rows, output.begin, output.end);
      meet(share);
    }
  }
}

// ---- backward ------------------------------------------------------------------------------------------------------

// dh from the step after, or from the caller for rows that end here.
template <class Cell, class T>
struct BackwardPhase {
  static constexpr int accumulators = 1;
  using H = typename Cell::HiddenGates;
  const BackwardTask<T>& a;
  const Share& share;
  int64_t step;    // -1: before the first step, only dh is wanted
  int skip;        // rows of the share that come before
  bool ends_here;  // the rows' last step

  T* dgates(int64_t s, int place) const {
    const int64_t row = a.schedule.first[s] - a.schedule.first[a.step_begin] + place;
    return a.dgates + row * Cell::accumulators * a.pitch;
  }

  void tile(int row, int height, int block, int width) const {
    constexpr int W = kLanes<T>;
    const int first = share.row_begin + (row + skip) * share.row_step;
    vec<T> sums[kAccumulators];
    if (ends_here) {
      for (int i = 0; i < height << width; ++i) {
        const T* const dh = a.dstate + ptrdiff_t(first + (i >> width) * share.row_step) * a.output_pitch;
        sums[i] = load(dh + (block + i % (1 << width)) * W);
      }
    } else {
      multiply_dgates(first, height, block, width, sums);
    }
    for (int i = 0; i < height << width; ++i) {
      finish(sums[i], first + (i >> width) * share.row_step, block + i % (1 << width));
    }
  }

  void multiply_dgates(int first, int height, int block, int width, vec<T>* sums) const {
    const ptrdiff_t segment = ptrdiff_t(a.hidden) * kLanes<T>, panel = segment * H::count;
    for (int i = 0; i < height << width; ++i) sums[i] = vec<T>{};
    Operand<T> ops[H::count];
    const T* ahead[kMaxRows * kReads];
    const int reads = step < 0 ? 0 : will_read(first, height, block * kLanes<T>, ahead);
    for (int g = 0; g < H::count; ++g) {
      for (int r = 0; r < height; ++r)
        ops[g].rows[r] = dgates(step + 1, first + r * share.row_step) + H::index[g] * a.pitch;
      ops[g].w = a.ut + block * panel + g * segment;
      ops[g].block_step = panel;
      ops[g].depth = a.hidden;
      const int begin = reads * g / H::count;
      ops[g].ahead = ahead + begin, ops[g].aheads = reads * (g + 1) / H::count - begin;
    }
    kPlainTiles<T>.at[height - 1][width](ops, H::count, sums);
  }

  // What the cell reads once the tile is done, a vector of each for every block: it lies kilobytes apart, where no hardware
  // prefetcher sees a pattern, so the tile asks for it, a part before each gate's product. LSTM T100, the sweep alone,
  // ms: B64 H256 18.3 to 17.5, B16 H256 4.4 to 4.1; the gates alone, at once before the tile, nothing.
  // (h, which GRU and RNN read too, was no gain for GRU and 10 % slower for RNN.)
  static constexpr int kReads = Cell::saved + Cell::has_cell_state + 1;
  int will_read(int first, int height, int unit, const T** ahead) const {
    int n = 0;
    for (int r = 0; r < height; ++r) {
      const int place = first + r * share.row_step;
      const T* const gates = a.tape_gates + (a.schedule.first[step] + place) * Cell::saved * a.pitch + unit;
      for (int g = 0; g < Cell::saved; ++g) ahead[n++] = gates + g * a.pitch;
      if (Cell::has_cell_state && step)
        ahead[n++] = a.tape_cell + (a.schedule.first[step - 1] + place) * a.pitch + unit;
      if (a.dy.data) ahead[n++] = at(a.dy, a.schedule, step, place) + unit;
    }
    return n;
  }

  FASTRNN_INLINE void finish(vec<T> dh, int place, int block) const {
    const int unit = block * kLanes<T>, lanes = lanes_of<T>(a.output, block);
    if constexpr (Cell::carries_dh) dh = dh + load(a.carry + ptrdiff_t(place) * a.pitch + unit);
    if (step < 0) return store(a.dstate + ptrdiff_t(place) * a.output_pitch + unit, dh);
    if (a.dy.data) dh = dh + load_first(at(a.dy, a.schedule, step, place) + unit, lanes);
    if (a.projection_t) {
      const int64_t row = a.schedule.first[step] - a.schedule.first[a.step_begin] + place;
      store(a.dprojected + row * a.output_pitch + unit, dh);
    } else {
      through_cell(a, *this, dh, place, block);
    }
  }
};

// dgates of one vector of units, and the carry for the step before.
template <class Cell, class T>
void through_cell(const BackwardTask<T>& a, const BackwardPhase<Cell, T>& phase, vec<T> dh, int place, int block) {
  const int unit = block * kLanes<T>, lanes = lanes_of<T>(a.hidden, block);
  const int64_t step = phase.step, row = a.schedule.first[step] + place;
  const Rows<const T>& y = a.y;
  CellBackward<vec<T>> s;
  s.dh = dh;
  for (int g = 0; g < Cell::saved; ++g) s.saved[g] = load(a.tape_gates + (row * Cell::saved + g) * a.pitch + unit);
  if constexpr (Cell::reads_h) s.h = load_first(at(y, a.schedule, step, place) + unit, lanes);
  if constexpr (Cell::reads_h_prev) {
    const T* const h = step ? at(y, a.schedule, step - 1, place) : a.h0 + ptrdiff_t(a.schedule.order[place]) * a.output;
    s.h_prev = load_first(h + unit, lanes);
  }
  T* const carry = a.carry + ptrdiff_t(place) * a.pitch + unit;
  if constexpr (Cell::has_cell_state) {
    s.c = load(a.tape_cell + row * a.pitch + unit);
    s.c_prev = load(step ? a.tape_cell + (a.schedule.first[step - 1] + place) * a.pitch + unit
                         : a.cell + ptrdiff_t(place) * a.pitch + unit);
    s.carry = load(carry);
  }
  Cell::backward(s);
  if constexpr (Cell::has_cell_state || Cell::carries_dh) store(carry, s.carry);
  T* const out = phase.dgates(step, place) + unit;
  for (int g = 0; g < Cell::accumulators; ++g) store(out + g * a.pitch, s.dgates[g]);
}

// dh before the projection: dh W_hr, then the cell.
template <class Cell, class T>
struct UnprojectPhase {
  static constexpr int accumulators = 1;
  const BackwardPhase<Cell, T>& phase;

  void tile(int row, int height, int block, int width) const {
    const BackwardTask<T>& a = phase.a;
    const int row_step = phase.share.row_step, first = phase.share.row_begin + row * row_step;
    const int64_t base = a.schedule.first[phase.step] - a.schedule.first[a.step_begin];
    vec<T> sums[kAccumulators] = {};
    Operand<T> op;
    for (int r = 0; r < height; ++r) op.rows[r] = a.dprojected + (base + first + r * row_step) * a.output_pitch;
    op.depth = a.output;
    op.block_step = ptrdiff_t(a.output) * kLanes<T>;
    op.w = a.projection_t + block * op.block_step;
    kPlainTiles<T>.at[height - 1][width](&op, 1, sums);
    for (int i = 0; i < height << width; ++i) {
      through_cell(a, phase, sums[i], first + (i >> width) * row_step, block + i % (1 << width));
    }
  }
};

// Steps [step_begin, step_end) downwards; when step_begin is 0 also dh before the first step, into dstate.
template <class Cell, class T>
void backward_sweep(const BackwardTask<T>& task, const Share& share, int64_t steps) {
  const Blocks hidden(blocks_of<T>(task.hidden), share.unit_part, share.unit_parts);
  const Blocks output(blocks_of<T>(task.output), share.unit_part, share.unit_parts);
  for (int64_t step = task.step_end - 1; step >= (task.step_begin ? task.step_begin : -1); --step) {
    const int go_on = step + 1 < steps ? places(share, live_rows(task.schedule, step + 1)) : 0;
    cover(BackwardPhase<Cell, T>{task, share, step, 0, false}, go_on, output.begin, output.end);
    if (step < 0) break;
    const int live = places(share, live_rows(task.schedule, step));
    const BackwardPhase<Cell, T> last{task, share, step, go_on, true};
    cover(last, live - go_on, output.begin, output.end);
    meet(share);
    if (task.projection_t) {
      cover(UnprojectPhase<Cell, T>{last}, live, hidden.begin, hidden.end);
      meet(share);
    }
  }
  meet(share);
}

}  // namespace
}  // namespace fastrnn
