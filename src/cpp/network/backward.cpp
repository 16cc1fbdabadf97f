// The backward pass through time, layer after layer from the top: in blocks of time the sweep fills dgates, then one
// product each makes dx, dW, dU and db of the block while dgates is still in the cache.
#include <algorithm>
#include <atomic>

#include "network/backward_work.h"
#include "network/dropout.h"
#include "network/share.h"

namespace fastrnn {
namespace {

template <class T>
class BackwardLayer {
 public:
  BackwardLayer(const Network<T>& net, const Tape<T>& tape, const Gradients<T>& call, int layer, Rows<const T> dy,
                Rows<T> dx, const Plan& plan, Arena memory)
      : net_(net),
        c_(net.config()),
        cell_(net.cell()),
        tape_(tape),
        call_(call),
        layer_(layer),
        dy_(dy),
        dx_(dx),
        plan_(plan),
        pitch_(padded(c_.hidden)),
        output_pitch_(padded(c_.output())),
        steps_(block_steps(tape.order)),
        work_(memory, net, tape.order, layer, plan, dx.data != nullptr) {
    for (int d = 0; d < c_.directions(); ++d) initialise(d);
  }

  void operator()(const Team& all) {
    each_direction(plan_, c_.directions(), all, barriers_,
                   [&](int d, const Team& team) { direction_pass(d, team, all.rank); });
    if (!dx_.data) return;
    const Share rows = share_of(Split::rows, tape_.order, all);
    if (work_.second_dx.data) {
      all.wait();
      add_second_dx(rows);
    }
    clear_past_end(tape_.order, rows, dx_, input());
  }

  // What is left when the threads are done: gradients of the biases.
  void finish() const {
    if (!call_.weights || !c_.bias) return;
    for (int d = 0; d < c_.directions(); ++d) {
      const T* const sums = work_.directions[d].bias_sums;
      const RawWeights<T> grads = weights(d);
      for (int g = 0; g < cell_.gates; ++g) {
        std::copy_n(sums + cell_.input_gates[g] * pitch_, c_.hidden, grads.bias_ih + ptrdiff_t(g) * c_.hidden);
        std::copy_n(sums + cell_.hidden_gates[g] * pitch_, c_.hidden, grads.bias_hh + ptrdiff_t(g) * c_.hidden);
      }
    }
  }

 private:
  int sweep(int direction) const { return layer_ * c_.directions() + direction; }
  int input() const { return c_.input_of(layer_); }
  RawWeights<T> weights(int d) const { return raw_weights(c_, call_.weights, sweep(d)); }

  void initialise(int d) {
    const DirectionWork<T>& w = work_.directions[d];
    std::fill_n(w.bias_sums, cell_.accumulators * pitch_, T(0));
    if (tape_.order.rows() > 0 || !call_.weights) return;
    const RawWeights<T> grads = weights(d);
    std::fill_n(grads.ih, ptrdiff_t(cell_.gates) * c_.hidden * input(), T(0));
    std::fill_n(grads.hh, ptrdiff_t(cell_.gates) * c_.hidden * c_.output(), T(0));
    if (c_.projection) std::fill_n(grads.hr, ptrdiff_t(c_.projection) * c_.hidden, T(0));
  }

  BackwardTask<T> make_task(int d) const {
    const PackedWeights<T>& p = net_.weights(sweep(d));
    const Trace<T>& t = tape_.sweeps[size_t(sweep(d))];
    const DirectionWork<T>& w = work_.directions[d];
    const Rows<T>& y = tape_.layers[size_t(layer_)].output;
    BackwardTask<T> task = {};
    task.schedule = tape_.order.schedule(d == 1);
    task.hidden = c_.hidden, task.output = c_.output(), task.pitch = pitch_, task.output_pitch = output_pitch_;
    task.ut = p.ut, task.projection_t = p.projection_t;
    task.dy = dy_;
    if (dy_.data) task.dy.data += d * c_.output();
    task.y = {y.data + d * c_.output(), y.step, y.row, y.packed};
    task.h0 = t.h0, task.c0 = t.c0, task.tape_gates = t.gates, task.tape_cell = t.tape_cell;
    task.dgates = w.dgates, task.dprojected = w.dprojected, task.dstate = w.dstate, task.carry = w.carry;
    return task;
  }

  void direction_pass(int d, const Team& team, int thread) {
    const Share share = share_of(plan_.split, tape_.order, team);
    BackwardTask<T> task = make_task(d);
    const StateGradients<T> states(net_, tape_.order, call_, sweep(d), work_.directions[d]);
    states.begin(share);
    const int64_t steps = tape_.order.steps();
    const ptrdiff_t row_size = ptrdiff_t(cell_.accumulators) * pitch_;
    for (int64_t end = steps; end > 0; end = task.step_begin) {
      task.step_end = end;
      task.step_begin = std::max<int64_t>(0, end - steps_);
      if (plan_.split == Split::pipeline && team.size > 1) {
        sweep_ahead(d, task, team, thread);
      } else {
        cell_.backward(task, share, steps);
        team.wait();
        input_gradient(d, task, team, thread);
      }
      weight_gradients(d, task, team, thread);
      team.wait();
      if (task.step_begin == 0) break;
      // The block's first step becomes the one behind the next block's last.
      const int64_t next = std::max<int64_t>(0, task.step_begin - steps_);
      const int64_t live = tape_.order.rows(task.step_begin, task.step_begin + 1);
      T* const behind = task.dgates + tape_.order.rows(next, task.step_begin) * row_size;
      const int64_t from = live * team.rank / team.size, to = live * (team.rank + 1) / team.size;
      std::copy_n(task.dgates + from * row_size, (to - from) * row_size, behind + from * row_size);
      team.wait();
    }
    states.end(share);
  }

  // One thread sweeps, and the others make dx of the steps it has left behind; when it is done, it helps. dx is the one
  // gradient that is no sum over time, so its rows may be made in any order and by anybody.
  void sweep_ahead(int d, const BackwardTask<T>& block, const Team& team, int thread) {
    const Team alone = {0, 1, nullptr};
    const Share everything = share_of(Split::none, tape_.order, alone);
    const int64_t chunks = (block.step_end - block.step_begin + plan_.chunk - 1) / plan_.chunk;
    const auto chunk = [&](int64_t k) {
      const int64_t end = block.step_end - k * plan_.chunk;
      return part_of(block, std::max(block.step_begin, end - plan_.chunk), end);
    };
    Progress& progress = progress_[d];
    for (int64_t k = 0; team.rank == 0 && k < chunks; ++k) {
      cell_.backward(chunk(k), everything, tape_.order.steps());
      progress.swept.store(k + 1, std::memory_order_release);
    }
    for (int64_t k; (k = progress.taken.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      for (Spin spin; progress.swept.load(std::memory_order_acquire) <= k;) spin();
      input_gradient(d, chunk(k), alone, thread);
    }
    team.wait();
    if (team.rank == 0) progress.swept = 0, progress.taken = 0;  // they meet once more before the next block
  }

  // Steps of a block: the dgates of those behind them follow theirs.
  BackwardTask<T> part_of(BackwardTask<T> task, int64_t begin, int64_t end) const {
    const ptrdiff_t rows = tape_.order.rows(task.step_begin, begin);
    task.dgates += rows * cell_.accumulators * pitch_;
    if (task.dprojected) task.dprojected += rows * output_pitch_;
    task.step_begin = begin, task.step_end = end;
    return task;
  }

  void weight_gradients(int d, const BackwardTask<T>& task, const Team& team, int thread) {
    if (!call_.weights) return;
    const ThreadWork<T>& t = work_.threads[thread];
    const RawWeights<T> grads = weights(d);
    const int rows = int(tape_.order.rows(task.step_begin, task.step_end));
    OuterTask<T> outer = {};
    outer.a = task.dgates, outer.a_step = ptrdiff_t(cell_.accumulators) * pitch_, outer.hidden = c_.hidden;
    outer.rows = rows, outer.scratch = t.scratch;
    outer.add = tape_.order.rows(task.step_end, tape_.order.steps()) > 0;  // blocks past every row's end add nothing
    split(outer, cell_.gates * c_.hidden, team);

    // The sums of the biases first: they bring near what another thread has written,
    // and the products read it next (Emerald Rapids, LSTM T100 B64 H256, two threads,
    // all weight gradients 22.8 ms with these sums behind the products, 22.3 so).
    const int vectors = cell_.accumulators * pitch_ / kPad;
    net_.kernels().column_sums(outer.a, outer.a_step, rows, vectors * team.rank / team.size * kPad,
                               vectors * (team.rank + 1) / team.size * kPad, work_.directions[d].bias_sums);

    gate_gradients(d, task, outer, t, grads);
    if (c_.projection) projection_gradient(d, task, outer, team, t, grads.hr);
  }

  // dW and dU.
  void gate_gradients(int d, const BackwardTask<T>& task, OuterTask<T> outer, const ThreadWork<T>& t,
                      const RawWeights<T>& grads) const {
    const Trace<T>& trace = tape_.sweeps[size_t(sweep(d))];
    each_row(task, [&](int n, int64_t step, int place) {
      t.left[n] = row_at(tape_.layers[size_t(layer_)].input, task.schedule, step, place);
      t.before[n] = step ? row_at(task.y, task.schedule, step - 1, place) : row_of(trace.h0, tape_.order.row(place));
    });
    const OuterRight<T> right[] = {{t.left, input(), grads.ih}, {t.before, c_.output(), grads.hh}};
    int columns[2][kMaxGates];
    for (int g = 0; g < cell_.gates; ++g) {
      columns[0][g] = cell_.input_gates[g] * pitch_, columns[1][g] = cell_.hidden_gates[g] * pitch_;
    }
    // Where both products read the same columns (GRU's do not: its n has two sums)
    // these are copied once. Training LSTM on Zen 5, old and new in turn: B16 H128
    // 3,660 to 3,600 us; B64 H256 on one thread 86.5 to 85.3 ms, on two nothing.
    outer.rights = std::equal(columns[0], columns[0] + cell_.gates, columns[1]) ? 2 : 1;
    for (int i = 0; i < 2; i += outer.rights) {
      outer.gate_column = columns[i], outer.right = right + i;
      net_.kernels().outer(outer);
    }
  }

  void projection_gradient(int d, const BackwardTask<T>& task, OuterTask<T> outer, const Team& team,
                           const ThreadWork<T>& t, T* to) const {
    const T* const from = tape_.sweeps[size_t(sweep(d))].unprojected + task.schedule.first[task.step_begin] * pitch_;
    for (ptrdiff_t n = 0; n < outer.rows; ++n) t.left[n] = from + n * pitch_;
    const OuterRight<T> unprojected = {t.left, c_.hidden, to};
    const int column = 0;
    outer.a = task.dprojected, outer.a_step = output_pitch_, outer.hidden = c_.projection;
    outer.gate_column = &column, outer.right = &unprojected, outer.rights = 1;
    split(outer, c_.projection, team);
    net_.kernels().outer(outer);
  }

  void input_gradient(int d, const BackwardTask<T>& task, const Team& team, int thread) {
    if (!dx_.data) return;
    const ThreadWork<T>& t = work_.threads[thread];
    const bool second = d == 1 && work_.second_dx.data;
    const Rows<T>& dx = second ? work_.second_dx : dx_;
    each_row(task, [&](int n, int64_t step, int place) {
      t.left[n] = task.dgates + ptrdiff_t(n) * cell_.accumulators * pitch_;
      t.right[n] = row_at(dx, task.schedule, step, place);
    });
    int offsets[kMaxGates];
    for (int g = 0; g < cell_.gates; ++g) offsets[g] = cell_.input_gates[g] * pitch_;
    const int64_t rows = tape_.order.rows(task.step_begin, task.step_end);
    const ProductTask<T> product = {t.left,  t.right, cell_.gates,      c_.hidden, offsets, net_.weights(sweep(d)).wt,
                                    nullptr, input(), d == 1 && !second};
    net_.kernels().product(product, {int(rows * team.rank / team.size), int(rows * (team.rank + 1) / team.size), 1, 0,
                                     1, nullptr, nullptr});
  }

  static void split(OuterTask<T>& outer, int m, const Team& team) {
    outer.row_begin = int(int64_t(m) * team.rank / team.size);
    outer.row_end = int(int64_t(m) * (team.rank + 1) / team.size);
  }

  // visit(n, step, place) for the n-th live row of the block.
  template <class Visit>
  void each_row(const BackwardTask<T>& task, Visit visit) const {
    int n = 0;
    for (int64_t step = task.step_begin; step < task.step_end; ++step) {
      const int live = int(tape_.order.rows(step, step + 1));
      for (int place = 0; place < live; ++place) visit(n++, step, place);
    }
  }

  void add_second_dx(const Share& share) const {
    const Schedule s = tape_.order.schedule(false);
    each_own_row(tape_.order, share, [&](int, int place) {
      for (int64_t step = 0; step < tape_.order.length(place); ++step) {
        T* const out = row_at(dx_, s, step, place);
        const T* const more = row_at(work_.second_dx, s, step, place);
        for (int j = 0; j < input(); ++j) out[j] += more[j];
      }
    });
  }

  const Network<T>& net_;
  const Config& c_;
  const CellKernels<T>& cell_;
  const Tape<T>& tape_;
  const Gradients<T>& call_;
  const int layer_;
  const Rows<const T> dy_;
  const Rows<T> dx_;
  const Plan plan_;
  const int pitch_, output_pitch_;
  const int64_t steps_;
  const BackwardWork<T> work_;
  Barrier barriers_[2];

  // Chunks of a block, counted from its last steps on.
  struct Progress {
    alignas(64) std::atomic<int64_t> swept{0};
    alignas(64) std::atomic<int64_t> taken{0};
  };
  Progress progress_[2];
};

}  // namespace

template <class T>
void Network<T>::backward(const Tape<T>& tape, const Gradients<T>& call) const {
  pack_backward(packing_threads(Use::backward, tape.order.steps(), tape.order.batch(), call.threads));
  const size_t n = size_t(tape.order.steps()) * size_t(tape.order.batch()) * size_t(config_.width());
  const ptrdiff_t row = config_.width(), step = row * tape.order.batch();
  // All that may fail comes before anything is written.
  const double distance = regions_distance();
  std::vector<Plan> plans;
  plans.reserve(size_t(config_.layers));
  size_t bytes = 0;
  for (int layer = 0; layer < config_.layers; ++layer) {
    plans.push_back(
        plan(layer, tape.order.steps(), tape.order.batch(), tape.order.rows(), call.threads, Use::backward, distance));
    Arena sizes;
    BackwardWork<T>(sizes, *this, tape.order, layer, plans.back(), layer || call.dx.data);
    bytes = std::max(bytes, sizes.used());
  }
  const Loan work(*pool_, bytes);
  // dx of a layer is dy of the one below: two buffers in turn.
  T* between[2] = {};
  const Loan gradients = carved(*pool_, [&](Arena& arena) {
    for (int i = 0; i < std::min(2, config_.layers - 1); ++i) between[i] = arena.take<T>(n);
  });
  Rows<const T> dy = call.dy;
  for (int layer = config_.layers - 1; layer >= 0; --layer) {
    const Rows<T> dx = layer ? Rows<T>{between[(layer - 1) % 2], step, row} : call.dx;
    const Plan& plan = plans[size_t(layer)];
    BackwardLayer<T> body(*this, tape, call, layer, dy, dx, plan, Arena(work.data()));
    parallel(plan.threads, body);
    body.finish();
    if (layer && tape.call.dropout > 0) dropout(dx.data, n, tape.call.dropout, tape.call.seed, layer - 1, plan.threads);
    dy = {dx.data, dx.step, dx.row};
  }
}

template void Network<float>::backward(const Tape<float>&, const Gradients<float>&) const;
template void Network<double>::backward(const Tape<double>&, const Gradients<double>&) const;

}  // namespace fastrnn
