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
  UnpackedStep(const Config& config, const Backend& backend, const T* const* weights, const Sequence<T>& call)
      : c_(config),
        kernels_(kernels_of<T>(backend)),
        cell_(kernels_.cells[int(config.cell)]),
        weights_(weights),
        call_(call),
        pitch_(padded(config.hidden)),
        memory_(carved([&](Arena& arena) { lay_out(arena); })) {
    std::fill_n(zeros_, pitch_, T(0));
    for (T* const sums : sums_) std::fill_n(sums, sums_size(), T(0));
  }

  void layer(int layer) {
    UnpackedTask<T> tasks[2];
    RowStep<T> rows[2][kMostUnpackedRows];
    for (int d = 0; d < c_.directions(); ++d) lay_rows(layer, d, rows[d]), tasks[d] = make_task(layer, d, rows[d]);
    const size_t bytes = size_t(cell_.gates) * size_t(c_.width()) * size_t(c_.input_of(layer) + c_.hidden) * sizeof(T);
    parallel(bytes < kWorthReadingTogether ? 1 : call_.threads, [&](const Team& team) {
      for (int d = 0; d < c_.directions(); ++d) kernels_.unpacked_sums(tasks[d], team.rank, team.size);
    });
    for (int d = 0; d < c_.directions(); ++d) {
      for (int r = 0; r < call_.batch; ++r) {
        finish(rows[d][r], tasks[d].sums + ptrdiff_t(r) * cell_.accumulators * pitch_);
        const SweepRows caller = sweep_rows(layer, d);
        copy_unless_there(rows[d][r].h, c_.hidden, caller.of(call_.hn, r, c_.hidden));
        if (cell_.has_cell_state) copy_unless_there(rows[d][r].c, c_.hidden, caller.of(call_.cn, r, c_.hidden));
      }
    }
  }

 private:
  void lay_out(Arena& arena) {
    zeros_ = arena.take<T>(size_t(pitch_));
    for (T*& bias : biases_) bias = arena.take<T>(size_t(cell_.accumulators * pitch_));
    for (T*& sums : sums_) sums = arena.take<T>(size_t(sums_size()));
    for (T*& c : copies_) c = arena.take_if<T>(copies_cell_state(), size_t(call_.batch * pitch_));
    for (T*& y : inner_) y = arena.take_if<T>(c_.layers > 1, size_t(call_.batch) * size_t(c_.width()));
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
    task.rows = rows, task.count = call_.batch, task.sums = sums_[direction];
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

  void lay_rows(int layer, int direction, RowStep<T>* rows) {
    const SweepRows sweep = sweep_rows(layer, direction);
    const auto initial = [&](const T* state, int r) { return state ? sweep.of(state, r, c_.hidden) : zeros_; };
    for (int r = 0; r < call_.batch; ++r) {
      rows[r] = {};
      rows[r].x = layer ? inner(layer - 1, r) : call_.x.data + r * call_.x.row;
      rows[r].h_prev = initial(call_.h0, r);
      rows[r].c_prev = initial(call_.c0, r), rows[r].c = sweep.of(call_.cn, r, c_.hidden);
      if (copies_cell_state()) {
        T* const copy = copies_[direction] + r * pitch_;
        std::copy_n(rows[r].c_prev, c_.hidden, copy);
        rows[r].c_prev = rows[r].c = copy;
      }
      T* const y = layer + 1 < c_.layers ? inner(layer, r) : call_.y.data + r * call_.y.row;
      rows[r].h = y + direction * c_.hidden;
    }
  }

  ptrdiff_t sums_size() const { return ptrdiff_t(call_.batch) * cell_.accumulators * pitch_; }
  // Rows of c are read and written as whole vectors.
  bool copies_cell_state() const { return cell_.has_cell_state && pitch_ != c_.hidden; }
  SweepRows sweep_rows(int layer, int direction) const { return {c_.sweep(layer, direction), call_.batch}; }
  // The output of a layer below the last.
  T* inner(int layer, int row) const { return inner_[layer % 2] + ptrdiff_t(row) * c_.width(); }

  const Config& c_;
  const Kernels<T>& kernels_;
  const CellKernels<T>& cell_;
  const T* const* const weights_;
  const Sequence<T>& call_;
  const int pitch_;
  T* zeros_;      // [pitch]
  T* biases_[2];  // [A][pitch], of either direction
  T* sums_[2];    // [B][A][pitch], of either direction
  T* copies_[2];  // [B][pitch] c, of either direction; null where it is carried in the caller's rows
  T* inner_[2];   // [B, D * H], of layers in turn; null of one layer
  const Block memory_;
};

}  // namespace

template <class T>
void run_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Sequence<T>& call) {
  UnpackedStep<T> step(config, backend, weights, call);
  for (int layer = 0; layer < config.layers; ++layer) step.layer(layer);
}

template void run_unpacked(const Config&, const Backend&, const float* const*, const Sequence<float>&);
template void run_unpacked(const Config&, const Backend&, const double* const*, const Sequence<double>&);

}  // namespace fastrnn
