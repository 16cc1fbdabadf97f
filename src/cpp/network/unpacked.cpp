#include "network/unpacked.h"

#include <algorithm>

#include "network/states.h"
#include "network/weights.h"
#include "plan/plan.h"
#include "threads/threads.h"

namespace fastrnn {
namespace {

template <class T>
class UnpackedStep {
 public:
  UnpackedStep(const Config& config, const Backend& backend, const T* const* weights, const Tape<T>& tape)
      : c_(config),
        kernels_(kernels_of<T>(backend)),
        cell_(kernels_.cells[int(config.cell)]),
        weights_(weights),
        tape_(tape),
        batch_(tape.call.batch),
        pitch_(padded(config.hidden)),
        memory_(carved([&](Arena& arena) { lay_out(arena); })) {
    for (T* const sums : sums_) std::fill_n(sums, sums_size(), T(0));
  }

  void layer(int layer) {
    const Team alone = {0, 1, nullptr};
    const Share everything = share_of(Split::none, tape_.order, alone);
    UnpackedTask<T> tasks[2];
    RowStep<T> rows[2][kMostUnpackedRows];
    for (int d = 0; d < c_.directions(); ++d) {
      states(layer, d).begin(everything);
      lay_rows(layer, d, rows[d]), tasks[d] = make_task(layer, d, rows[d]);
    }
    parallel(unpacked_threads(c_, cell_, layer, tape_.call.threads), [&](const Team& team) {
      for (int d = 0; d < c_.directions(); ++d) kernels_.unpacked_sums(tasks[d], team.rank, team.size);
    });
    for (int d = 0; d < c_.directions(); ++d) {
      for (int r = 0; r < batch_; ++r) finish(rows[d][r], tasks[d].sums + ptrdiff_t(r) * cell_.accumulators * pitch_);
      states(layer, d).end(everything, output(layer, d), tape_.order.schedule(d == 1));
    }
  }

 private:
  void lay_out(Arena& arena) {
    for (T*& bias : biases_) bias = arena.take<T>(size_t(cell_.accumulators * pitch_));
    for (T*& sums : sums_) sums = arena.take<T>(size_t(sums_size()));
  }

  UnpackedTask<T> make_task(int layer, int direction, const RowStep<T>* rows) {
    const RawWeights<const T> raw = raw_weights(c_, weights_, c_.sweep(layer, direction));
    const KernelMode mode;  // denormal biases are zero, as where they are packed
    pack_bias(cell_, c_.hidden, raw, biases_[direction]);
    UnpackedTask<T> task = {};
    task.input = c_.input_of(layer), task.hidden = c_.hidden, task.pitch = pitch_;
    task.w = raw.ih, task.u = raw.hh, task.bias = biases_[direction];
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
  T* biases_[2];  // [A][pitch], of either direction
  T* sums_[2];    // [B][A][pitch], of either direction
  const Block memory_;
};

}  // namespace

template <class T>
void forward_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Tape<T>& tape) {
  UnpackedStep<T> step(config, backend, weights, tape);
  if (tape.zeros) std::fill_n(tape.zeros, tape.zero_count(config), T(0));
  for (int layer = 0; layer < config.layers; ++layer) step.layer(layer);
}

template <class T>
void run_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Sequence<T>& call) {
  Tape<T> tape(config, call, false);
  const Block memory =
      carved([&](Arena& arena) { tape.lay_out(arena, config, kernels_of<T>(backend).cells[int(config.cell)]); });
  forward_unpacked(config, backend, weights, tape);
}

template void forward_unpacked(const Config&, const Backend&, const float* const*, const Tape<float>&);
template void forward_unpacked(const Config&, const Backend&, const double* const*, const Tape<double>&);
template void run_unpacked(const Config&, const Backend&, const float* const*, const Sequence<float>&);
template void run_unpacked(const Config&, const Backend&, const double* const*, const Sequence<double>&);

}  // namespace fastrnn
