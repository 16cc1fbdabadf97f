// The recurrent sweep: a loop over time in which every step multiplies with the same packed weights and ends, in
// registers, with the cell's equations. Forward and backward, any cell, any direction of time.
//
//              walks time   multiplies                starts from         ends with
//   forward    up           x[t] by W, h[t-1] by U    the bias            Cell::gates, output
//   backward   down         dgates[t+1] by U^T        zero, dy[t] is      Cell::backward
//                                                     added at the end
// dy comes last so that dh can be handed over between chunks of time without a change of bits.
//
// Here are the steps upwards, from `forward_sweep` at the end of the file: many rows in tiles, one row by itself
// (one_row.h), the projection behind them. walk.h finds where rows lie, row.h has what the equations read and write.
// Steps downwards are in backward.h.
#pragma once

#include "sweep/one_row.h"

namespace fastrnn {
namespace {

template <class Cell, class V>
struct ForwardPhase {
  using T = element<V>;
  static constexpr int accumulators = Cell::accumulators, A = accumulators;
  static constexpr int vectors = kVectorsOf<typename Cell::InputGates, V>;
  const ForwardTask<T>& a;
  const RowStep<T>* rows;

  void tile(int row, int height, int block, int width, const Coming& coming) const {
    constexpr int L = kLanesOf<V>;
    V sums[kMostSums];
    Operand<T> ops[2];
    const ptrdiff_t w_step = ptrdiff_t(a.input) * Cell::InputGates::count * L;
    const ptrdiff_t u_step = ptrdiff_t(a.output) * Cell::HiddenGates::count * L;
    ops[0].weights(a.w, w_step, a.hoisted ? 0 : a.input, block, coming);
    ops[1].weights(a.u, u_step, a.output, block, coming);
    Start<T> start(a.bias, a.bias + block * L, a.pitch);
    // Where h goes is prefetched. LSTM, AVX-512 on Zen 4 (into the first level), time over that without: B64 H128 0.98,
    // H256 and H512 0.99, training B64 H256 0.99; GRU, RNN and AVX2 0.99 to 1.00; c_prev as well: nothing.
    const T* ahead[kMaxRows * (1 + kWrites)];
    ops[0].ahead = ahead, ops[0].aheads = height;
    for (int r = 0; r < height; ++r) {
      ahead[r] = rows[row + r].h + block * L;
      start.rows[r] = rows[row + r].start + block * L;
      ops[0].rows[r] = rows[row + r].x, ops[1].rows[r] = rows[row + r].h_prev;
    }
    if (kAsksForWeights<V> && rows[row].saved && height * vectors <= kAccumulators) {
      ops[1].ahead = ahead + height, ops[1].aheads = will_write(rows + row, height, block * L, ahead + height);
    }
    kCellTiles<Cell, V>.at[height][width](start, ops, 2, sums);
    if constexpr (kGatesJoin<typename Cell::InputGates, V>) {
      finish_groups(rows + row, height, block, sums);
    } else {
      finish<V>([&](auto visit) {
        each_sum(height, width, [&](int i, int r, int b) { visit(rows[row + r], block + b, sums + i * A); });
      });
    }
  }

  // Rows in groups that fill a vector. Where a group lacks some, its last row is there several times.
  void finish_groups(const RowStep<T>* of, int height, int block, const V* sums) const {  // [height][A]
    constexpr int N = kPartsOf<V>, most = (kMaxRows + N - 1) / N;
    vec<T> joined[most][A];
    RowGroup<T, N> groups[most];
    const int count = (height + N - 1) / N;
    for (int n = 0; n < count; ++n) {
      V parts[A][N];
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const int row = n * N + i < height ? n * N + i : height - 1;
        groups[n].rows[i] = of + row;
#pragma GCC unroll 4
        for (int g = 0; g < A; ++g) parts[g][i] = sums[row * A + g];
      }
#pragma GCC unroll 4
      for (int g = 0; g < A; ++g) joined[n][g] = join(parts[g]);
    }
    finish<vec<T>>([&](auto visit) {
      for (int n = 0; n < count; ++n) visit(groups[n], block, joined[n]);
    });
  }

  // The equations: each_row(visit) calls visit(a row or a group, a block, its sums) for all of a tile.
  template <class Sum, class Each>
  FASTRNN_INLINE void finish(Each each_row) const {
    if constexpr (Cell::output_apart) {
      static_assert(A >= 2, "kept lies where the sums were");
      each_row([&](const auto& r, int b, Sum* kept) {
        const CellForward<Sum> s = run_gates<Cell>(a, r, b, kept);
        kept[0] = s.kept[0], kept[1] = s.kept[1];
      });
      each_row([&](const auto& r, int b, const Sum* kept) {
        CellForward<Sum> s;
        s.kept[0] = kept[0], s.kept[1] = kept[1];
        run_output<Cell>(a, r, b, s);
      });
    } else {
      each_row([&](const auto& r, int b, const Sum* done) {
        CellForward<Sum> s = run_gates<Cell>(a, r, b, done);
        run_output<Cell>(a, r, b, s);
      });
    }
  }

  // Where a row's equations write to the tape, a vector of each for every block. It pays for tiles of one pass with
  // AVX-512 to prefetch that. Emerald Rapids, two threads, time of forward over that without, in two or three sittings:
  // LSTM B64 H256 0.95 to 0.98, H128 0.93 to 0.94, GRU B64 H256 0.93 to 0.97, B16 H128 0.98; LSTM by eight rows, tiles
  // of four passes, 0.99 to 1.08, GRU with AVX2 1.01 to 1.02.
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

// A step of many rows, in groups whose pointers are found once for all blocks of units. Out of line: what it keeps in
// registers and on the stack is no cost of a step of a single row.
template <class Cell, class T>
[[gnu::noinline]] void forward_rows(const ForwardTask<T>& a, RowWalk<Cell, T>& walk, int64_t step, int rows,
                                    const UnitBlocks<T>& hidden, bool down) {
  walk.each(step, rows, [&](const RowStep<T>* group, int n) {
    hidden.template each_width<Cell::InputGates::count>([&](auto vector, int first, int last) {
      cover(ForwardPhase<Cell, decltype(vector)>{a, group}, n, first, last, down);
    });
  });
}

// h = W_hr (o tanh(c)): the second phase of a step with projection (Sak, Senior & Beaufays 2014).
template <class T>
struct ProjectionPhase {
  static constexpr int accumulators = 1, vectors = 1;
  const ForwardTask<T>& a;
  const Share& share;
  int64_t step;

  void tile(int row, int height, int block, int width, const Coming& coming) const {
    constexpr int L = kLanes<T>;
    const int first = share.row_begin + row * share.row_stride;
    const int64_t base = a.tape_cell ? a.schedule.first[step] : 0;
    vec<T> sums[kMostSums];
    Operand<T> op;
    for (int r = 0; r < height; ++r) op.rows[r] = a.unprojected + (base + first + r * share.row_stride) * a.pitch;
    op.weights(a.projection, ptrdiff_t(a.hidden) * L, a.hidden, block, coming);
    kPlainTiles<T>.at[height][width](kFromZero<T>, &op, 1, sums);
    each_sum(height, width, [&](int i, int r, int b) {
      T* const y = row_at(a.y, a.schedule, step, first + r * share.row_stride);
      store_first(y + (block + b) * L, sums[i], lanes_of<T>(a.output, block + b));
    });
  }
};

// The same for one row by weights that are bfloat16.
FASTRNN_INLINE void project_row(const ForwardTask<float>& a, int row, const BlockRange& output, int64_t step) {
  const int64_t place = (a.tape_cell ? a.schedule.first[step] : 0) + row;
  float* const y = row_at(a.y, a.schedule, step, row);
  row_product({a.unprojected + place * a.pitch, a.bf16.projection, nullptr, y, a.output, a.hidden}, output);
}
FASTRNN_INLINE void project_row(const ForwardTask<double>&, int, const BlockRange&, int64_t) {}  // there are none

template <class Cell, class T>
void forward_sweep(const ForwardTask<T>& task, const Share& share) {
  const UnitBlocks<T> hidden(task.hidden, Cell::InputGates::count, share.unit_part, share.unit_parts);
  const BlockRange output(blocks_of<T>(task.output), share.unit_part, share.unit_parts);
  RowWalk<Cell, T> walk(task, share);
  for (int64_t step = task.step_begin; step < task.step_end; ++step) {
    const int rows = places(share, live_rows(task.schedule, step));
    const bool down = (step & 1) != task.odd;
    if (rows == 1) {
      if (task.handed_over) fetch_hoisted<Cell>(task, step, share.row_begin);
      forward_row<Cell>(task, *walk.at(step, 0, 1), hidden, down);
    } else {
      forward_rows<Cell>(task, walk, step, rows, hidden, down);
    }
    meet(share);
    if (task.projection) {
      if (rows == 1 && task.bf16.projection) {
        project_row(task, share.row_begin, output, step);
      } else {
        cover(ProjectionPhase<T>{task, share, step}, rows, output.begin, output.end, down);
      }
      meet(share);
    }
  }
}

}  // namespace
}  // namespace fastrnn
