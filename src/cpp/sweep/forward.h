// Steps upwards: the tile of a step, one row alone, the projection behind it.
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

template <class Cell, class V>
struct ForwardPhase {
  using T = element<V>;
  static constexpr int accumulators = Cell::accumulators, A = accumulators, gates = Cell::InputGates::count;
  const ForwardTask<T>& a;
  const RowStep<T>* rows;

  void tile(int row, int height, int block, int width, const Coming& coming) const {
    constexpr int W = kLanesOf<V>;
    V sums[kMostSums];
    Operand<T> ops[2];
    const ptrdiff_t w_step = ptrdiff_t(a.input) * Cell::InputGates::count * W;
    const ptrdiff_t u_step = ptrdiff_t(a.output) * Cell::HiddenGates::count * W;
    ops[0].weights(a.w, w_step, a.hoisted ? 0 : a.input, block, coming);
    ops[1].weights(a.u, u_step, a.output, block, coming);
    Start<T> start(a.bias, a.bias + block * W, a.pitch);
    // Where h goes is asked for beforehand. LSTM, AVX-512 on Zen 4 (into the first level), time over without: B64 H128
    // 0.98, H256 and H512 0.99, training B64 H256 0.99; GRU, RNN and AVX2 0.99 to 1.00; c_prev as well: nothing.
    const T* ahead[kMaxRows * (1 + kWrites)];
    ops[0].ahead = ahead, ops[0].aheads = height;
    for (int r = 0; r < height; ++r) {
      ahead[r] = rows[row + r].h + block * W;
      start.rows[r] = rows[row + r].start + block * W;
      ops[0].rows[r] = rows[row + r].x, ops[1].rows[r] = rows[row + r].h_prev;
    }
    if (kAsksForWeights<V> && rows[row].saved && height * gates <= kAccumulators) {
      ops[1].ahead = ahead + height, ops[1].aheads = will_write(rows + row, height, block * W, ahead + height);
    }
    kCellTiles<Cell, V>.at[height][width](start, ops, 2, sums);
    const auto each = [&](auto visit) {
      each_sum(height, width, [&](int i, int r, int v) { visit(rows[row + r], block + v, sums + i * A); });
    };
    if constexpr (Cell::output_apart) {
      static_assert(A >= 2, "kept lies where the sums were");
      each([&](const RowStep<T>& r, int b, V* kept) {
        const CellForward<V> s = run_gates<Cell>(a, r, b, kept);
        kept[0] = s.kept[0], kept[1] = s.kept[1];
      });
      each([&](const RowStep<T>& r, int b, const V* kept) {
        CellForward<V> s;
        s.kept[0] = kept[0], s.kept[1] = kept[1];
        run_output<Cell>(a, r, b, s);
      });
    } else {
      each([&](const RowStep<T>& r, int b, const V* done) {
        CellForward<V> s = run_gates<Cell>(a, r, b, done);
        run_output<Cell>(a, r, b, s);
      });
    }
  }

  // What a row's equations write to the tape, a vector of each for every block, which a tile of
  // one pass asks for. Emerald Rapids, two threads, time of forward over that without, in two or
  // three sittings: LSTM B64 H256 0.95 to 0.98, H128 0.93 to 0.94, GRU B64 H256 0.93 to 0.97, B16
  // H128 0.98; LSTM by eight rows, tiles of four passes, 0.99 to 1.08, GRU with AVX2 1.01 to 1.02.
  static constexpr int kWrites = Cell::saved + Cell::has_cell_state;
  int will_write(const RowStep<T>* tile_rows, int height, int unit, const T** ahead) const {
    int n = 0;
    for (int r = 0; r < height; ++r) {
      for (int g = 0; g < Cell::saved; ++g) ahead[n++] = tile_rows[r].saved + g * a.pitch + unit;
      if (Cell::has_cell_state) ahead[n++] = tile_rows[r].c + unit;
    }
    return n;
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
    for (int r = 0; r < n; ++r) group[r] = row_step<Cell>(a, step, share.row_begin + (begin + r) * share.row_stride);
    hidden.each_width([&](auto vector, int first, int last) {
      cover(ForwardPhase<Cell, decltype(vector)>{a, group}, n, first, last);
    });
  }
}

// One row alone: no other row hides its latencies, so the sums of N blocks never leave the registers, and the gates of
// all come before any h, which waits for them. Zen 4, a step's time over that with each block's h behind its gates:
// row_end below, and with AVX2 (two blocks) LSTM H20 0.84 to 0.92, H64 0.93, H32 0.97, GRU H32 0.94.
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
  CellForward<V> s[N];
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) s[v] = run_gates<Cell>(a, r, block + v, sums + v * A);
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) run_output<Cell>(a, r, block + v, s[v]);
}

// The last whole block and the half behind it. Alone the half would wait for its latencies
// as long as a whole block. T100 on one thread, time over that with the gates and h of the
// whole before those of the half: LSTM H20 0.91, H40 0.93, GRU H20 0.98, H40 0.91, H50 0.95.
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
  CellForward<vec<T>> s = run_gates<Cell>(a, r, block, whole);
  CellForward<half_vec<T>> s_half = run_gates<Cell>(a, r, 2 * block + 2, half);
  run_output<Cell>(a, r, block, s);
  run_output<Cell>(a, r, 2 * block + 2, s_half);
}

// Blocks [begin, end), N at once as long as there are as many, then half of that.
template <int N, class Cell, class T>
FASTRNN_INLINE void row_groups(const ForwardTask<T>& a, const RowStep<T>& r, int begin, int end, bool down) {
  const int groups = (end - begin) / N;
  for (int i = 0; i < groups; ++i) row_blocks<N, Cell, vec<T>>(a, r, begin + (down ? groups - 1 - i : i) * N);
  if constexpr (N > 1) row_groups<N / 2, Cell>(a, r, begin + groups * N, end, down);
}

// Whether blocks go in pairs where kPairsPay: none may be left over, and the weights have to come
// from the first-level cache. Of several pairs it need hold five eighths only, as a step reads first
// what the one before read last; of a single one all. A step's time over that with single blocks:
// Zen 4 (32 KB) LSTM H32, I1 to I24 0.95 to 0.99, but I32 1.05, I64 (49 KB) 1.21, two layers of LSTM
// H32 or H28 (I1) called from Python 1.05; Emerald Rapids (48 KB) LSTM H32 I32 0.89, H64 I1 0.93.
template <class Cell, class T>
FASTRNN_INLINE bool in_pairs(const UnitBlocks<T>& blocks, int count, int depth, int near) {
  constexpr int64_t step = Cell::HiddenGates::count * FASTRNN_VECTOR_BYTES;  // bytes of a block for a step of k
  const int64_t bytes = (blocks.end - blocks.begin + (blocks.half >= 0)) * step * depth;
  return count % 2 == 0 && bytes <= (count > 2 ? near / 5 * 8 : near / 16 * 15);
}

// Every other step walks the blocks downwards: weights too large for a cache find there what the step before read last,
// where a walk in one direction finds nothing of what it needs (LSTM H256, two threads: 12.4 -> 11.3 us).
template <class Cell, class T>
[[gnu::noinline]] void forward_row(const ForwardTask<T>& a, const RowStep<T>& r, const UnitBlocks<T>& blocks,
                                   bool down) {
  constexpr int N = kChains > Cell::accumulators ? kChains / Cell::accumulators : 1;
  const bool paired = kHalvesPay && N == 1 && blocks.half >= 0 && blocks.end > blocks.begin;
  const int end = blocks.end - paired;
  if (kPairsPay && N == 1 && in_pairs<Cell>(blocks, end - blocks.begin, a.output + (r.x ? a.input : 0), a.near)) {
    row_groups<2, Cell>(a, r, blocks.begin, end, down);
  } else {
    row_groups<N, Cell>(a, r, blocks.begin, end, down);
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
  static constexpr int accumulators = 1, gates = 1;
  const ForwardTask<T>& a;
  const Share& share;
  int64_t step;

  void tile(int row, int height, int block, int width, const Coming& coming) const {
    constexpr int W = kLanes<T>;
    const int first = share.row_begin + row * share.row_stride;
    const int64_t base = a.tape_cell ? a.schedule.first[step] : 0;
    vec<T> sums[kMostSums];
    Operand<T> op;
    for (int r = 0; r < height; ++r) op.rows[r] = a.unprojected + (base + first + r * share.row_stride) * a.pitch;
    op.weights(a.projection, ptrdiff_t(a.hidden) * W, a.hidden, block, coming);
    kPlainTiles<T>.at[height][width](kFromZero<T>, &op, 1, sums);
    each_sum(height, width, [&](int i, int r, int v) {
      T* const y = row_at(a.y, a.schedule, step, first + r * share.row_stride);
      store_first(y + (block + v) * W, sums[i], lanes_of<T>(a.output, block + v));
    });
  }
};

// Asks for what another thread has multiplied for the next step of one row, and for the first of a chunk. Emerald
// Rapids, where a line takes 100 ns from the other core's cache, pipelines of two, T100, us before / since: LSTM H64 80
// / 70, GRU H64 50 / 41, RNN H64 20 / 19; two or more steps ahead the same. Zen 4: nothing.
template <class Cell, class T>
FASTRNN_INLINE void fetch_hoisted(const ForwardTask<T>& a, int64_t step, int place) {
  constexpr ptrdiff_t line = 64 / sizeof(T);
  const ptrdiff_t size = Cell::InputGates::count * a.pitch;
  for (int64_t s = step == a.step_begin ? step : step + 1; s <= step + 1 && s < a.step_end; ++s) {
    const T* const start = a.hoisted + ((s - a.step_begin) * a.hoisted_rows + place) * size;
    for (ptrdiff_t i = 0; i < size; i += line) __builtin_prefetch(start + i);
  }
}

template <class Cell, class T>
void forward_sweep(const ForwardTask<T>& task, const Share& share) {
  const UnitBlocks<T> hidden(task.hidden, share.unit_part, share.unit_parts);
  const Blocks output(blocks_of<T>(task.output), share.unit_part, share.unit_parts);
  for (int64_t step = task.step_begin; step < task.step_end; ++step) {
    const int rows = places(share, live_rows(task.schedule, step));
    if (rows == 1) {
      if (task.handed_over) fetch_hoisted<Cell>(task, step, share.row_begin);
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

}  // namespace
}  // namespace fastrnn
