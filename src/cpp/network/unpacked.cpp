#include "network/unpacked.h"

#include <algorithm>

#include "network/pieces.h"
#include "network/states.h"
#include "network/weights.h"
#include "plan/plan.h"
#include "threads/threads.h"

namespace fastrnn {
namespace {

template <class T>
class UnpackedStep {
 public:
  UnpackedStep(const Config& config, const Backend& backend, const T* const* weights, const Tape<T>& tape,
               BlockPool& pool)
      : c_(config),
        kernels_(kernels_of<T>(backend)),
        cell_(kernels_.cells[int(config.cell)]),
        weights_(weights),
        tape_(tape),
        batch_(tape.call.batch),
        pitch_(padded(config.hidden)),
        sums_at_once_(tape.call.batch <= kernels_.sum_rows),
        memory_(carved(pool, [&](Arena& arena) { lay_out(arena); })) {
    if (!sums_at_once_) return;
    for (T* const sums : sums_) std::fill_n(sums, sums_size(), T(0));  // those behind the last unit stay so
  }

  void layer(int layer) {
    const Team alone = {0, 1, nullptr};
    const Share everything = share_of(Split::none, tape_.order, alone);
    for (int d = 0; d < c_.directions(); ++d) {
      states(layer, d).begin(everything);
      const KernelMode mode;  // denormal biases are zero, as where they are packed
      pack_bias(cell_, c_.hidden, raw(layer, d), biases_[d]);
    }
    sums_at_once_ ? few_rows(layer) : by_pieces(layer);
    for (int d = 0; d < c_.directions(); ++d) {
      states(layer, d).end(everything, output(layer, d), tape_.order.schedule(d == 1));
    }
  }

 private:
  void lay_out(Arena& arena) {
    for (T*& bias : biases_) bias = arena.take<T>(size_t(cell_.accumulators * pitch_));
    for (T*& sums : sums_) sums = arena.take_if<T>(sums_at_once_, size_t(sums_size()));
    if (sums_at_once_) return;
    for (int layer = 0; layer < c_.layers; ++layer) {
      piece_values_ = std::max(piece_values_, ptrdiff_t(pieces_of(layer).values));
    }
    piece_memory_ = arena.take<T>(size_t(tape_.call.threads), size_t(piece_values_));
  }

  int threads(int layer) const { return unpacked_threads(c_, kernels_, layer, batch_, tape_.call.threads); }
  RawWeights<const T> raw(int layer, int d) const { return raw_weights(c_, weights_, c_.sweep(layer, d)); }

  void few_rows(int layer) {
    UnpackedTask<T> tasks[2];
    RowStep<T> rows[2][kMostSumRows];
    for (int d = 0; d < c_.directions(); ++d) lay_rows(layer, d, rows[d]), tasks[d] = make_task(layer, d, rows[d]);
    parallel(threads(layer), [&](const Team& team) {
      for (int d = 0; d < c_.directions(); ++d) kernels_.unpacked_sums(tasks[d], team.rank, team.size);
    });
    for (int d = 0; d < c_.directions(); ++d) {
      for (int r = 0; r < batch_; ++r) finish(rows[d][r], tasks[d].sums + ptrdiff_t(r) * cell_.accumulators * pitch_);
    }
  }

  Pieces pieces_of(int layer) const {
    return Pieces(kernels_, c_.hidden, cell_.gates, c_.input_of(layer) + c_.hidden, threads(layer));
  }

  void by_pieces(int layer) {
    const Pieces pieces = pieces_of(layer);
    ForwardTask<T> tasks[2];
    for (int d = 0; d < c_.directions(); ++d) {
      tasks[d] = sized_task<T>(c_, layer);
      lay_task(c_, tape_, layer, d, tasks[d]);
      tasks[d].step_end = 1, tasks[d].bias = biases_[d];
    }
    parallel(threads(layer), [&](const Team& team) {
      const Range mine = part_of(pieces.count, team.rank, team.size);
      T* const memory = piece_memory_ + ptrdiff_t(team.rank) * piece_values_;
      for (int d = 0; d < c_.directions(); ++d) {
        for (int64_t i = mine.begin; i < mine.end; ++i) multiply(tasks[d], raw(layer, d), pieces, int(i), memory);
      }
    });
  }

  void multiply(ForwardTask<T> task, const RawWeights<const T>& raw, const Pieces& all, int piece, T* memory) const {
    T* const w = memory - all.before(piece, task.input);
    T* const u = memory + all.size(piece, task.input) - all.before(piece, task.hidden);
    kernels_.pack_gates({raw.ih, cell_.gates, task.hidden, task.input, piece, all.count, w, false});
    kernels_.pack_gates({raw.hh, cell_.gates, task.hidden, task.hidden, piece, all.count, u, false});
    task.w = w, task.u = u;
    cell_.forward(task, units_part(batch_, piece, all.count));
  }

  UnpackedTask<T> make_task(int layer, int direction, const RowStep<T>* rows) {
    UnpackedTask<T> task = {};
    task.input = c_.input_of(layer), task.hidden = c_.hidden, task.pitch = pitch_;
    task.w = raw(layer, direction).ih, task.u = raw(layer, direction).hh, task.bias = biases_[direction];
    task.accumulators = cell_.accumulators;
    std::fill_n(task.input_gate, kMaxGates, -1), std::fill_n(task.hidden_gate, kMaxGates, -1);
    for (int g = 0; g < cell_.gates; ++g) task.input_gate[cell_.input_gates[g]] = g;
    for (int g = 0; g < cell_.gates; ++g) task.hidden_gate[cell_.hidden_gates[g]] = g;
    task.rows = rows, task.count = batch_, task.sums = sums_[direction];
    return task;
  }

  // The cell's equations, from a row's sums.
  void finish(RowStep<T> row, const T* sums) const {
    ForwardTask<T> task = {};
    task.hidden = c_.hidden, task.pitch = pitch_, task.bias = sums;
    row.x = nullptr, row.start = sums;
    const KernelMode mode;
    cell_.forward_step(task, row);
  }

  void lay_rows(int layer, int direction, RowStep<T>* rows) const {
    const Trace<T>& t = tape_.sweeps[size_t(c_.sweep(layer, direction))];
    const Schedule s = tape_.order.schedule(direction == 1);
    for (int r = 0; r < batch_; ++r) {
      RowStep<T>& row = rows[r] = {};
      row.x = row_at(tape_.layers[size_t(layer)].input, s, 0, r);
      row.h_prev = row_of(t.h0, r), row.h = row_at(output(layer, direction), s, 0, r);
      if (tape_.keeps) row.saved = t.gates + ptrdiff_t(r) * cell_.saved * pitch_;
      if (!cell_.has_cell_state) continue;
      row.c_prev = row_of(t.c0, r), row.c = tape_.keeps ? t.tape_cell + ptrdiff_t(r) * pitch_ : row_of(t.cell, r);
    }
  }

  States<T> states(int layer, int direction) const { return {c_, tape_, c_.sweep(layer, direction)}; }
  Rows<T> output(int layer, int direction) const {
    Rows<T> y = tape_.layers[size_t(layer)].output;
    y.data += direction * c_.hidden;
    return y;
  }
  ptrdiff_t sums_size() const { return ptrdiff_t(batch_) * cell_.accumulators * pitch_; }

  const Config& c_;
  const Kernels<T>& kernels_;
  const CellKernels<T>& cell_;
  const T* const* const weights_;
  const Tape<T>& tape_;
  const int batch_, pitch_;
  const bool sums_at_once_;
  T* biases_[2];               // [A][pitch], of either direction
  T* sums_[2];                 // [B][A][pitch], of either direction, for few rows
  T* piece_memory_ = nullptr;  // [threads][piece_values_], for more
  ptrdiff_t piece_values_ = 0;
  const Loan memory_;
};

}  // namespace

template <class T>
void forward_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Tape<T>& tape,
                      BlockPool& pool) {
  UnpackedStep<T> step(config, backend, weights, tape, pool);
  if (tape.zeros) std::fill_n(tape.zeros, tape.zero_count(config), T(0));
  for (int layer = 0; layer < config.layers; ++layer) step.layer(layer);
}

template <class T>
void run_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Sequence<T>& call,
                  BlockPool& pool) {
  Tape<T> tape(config, call, false);
  const CellKernels<T>& cell = kernels_of<T>(backend).cells[int(config.cell)];
  const Loan memory = carved(pool, [&](Arena& arena) { tape.lay_out(arena, config, cell); });
  forward_unpacked(config, backend, weights, tape, pool);
}

template void forward_unpacked(const Config&, const Backend&, const float* const*, const Tape<float>&, BlockPool&);
template void forward_unpacked(const Config&, const Backend&, const double* const*, const Tape<double>&, BlockPool&);
template void run_unpacked(const Config&, const Backend&, const float* const*, const Sequence<float>&, BlockPool&);
template void run_unpacked(const Config&, const Backend&, const double* const*, const Sequence<double>&, BlockPool&);

}  // namespace fastrnn
