// The pass back over one layer: in blocks of time the sweep fills dgates, then one product each makes dx, dW, dU and db
// of the block while dgates is still in the cache.
#pragma once

#include <algorithm>
#include <atomic>

#include "network/dropout.h"
#include "network/gradients.h"
#include "network/states.h"

namespace fastrnn {

// Run by every thread of a region: all of it, or chunk by chunk, by one thread at a time.
template <class T>
class BackwardLayer {
 public:
  BackwardLayer(const Network<T>& net, const Tape<T>& tape, const Gradients<T>& call, int layer,
                const BackwardMemory<T>& memory, const Plan& plan, bool unpacked = false)
      : net_(net),
        c_(net.config()),
        cell_(net.cell()),
        tape_(tape),
        call_(call),
        layer_(layer),
        dy_(memory.dy_of(layer)),
        dx_(memory.dx_of(layer)),
        plan_(plan),
        dropout_{tape.call.dropout, tape.call.seed, layer - 1},
        pitch_(padded(c_.hidden)),
        output_pitch_(padded(c_.output())),
        steps_(block_steps(tape.order)),
        work_(memory.work_of(layer)),
        unpacked_(unpacked),
        gradients_(net, tape, call, layer, dx_, work_, unpacked) {}

  void operator()(const Team& all) {
    each_direction(plan_, c_.directions(), all, barriers_,
                   [&](int d, const Team& team) { direction_pass(d, team, all.rank); });
    gradients_.finish_rows(all);
  }

  // Chunk k of chunks(), counted from the last steps on, by one thread. With the last one of a block come the gradients
  // of its weights, for which the layer below does not wait.
  template <class HandOver>
  void chunk(int64_t k, const HandOver& hand_over) {
    const Team alone = {0, 1, nullptr};
    const Share everything = share_of(Split::none, tape_.order, alone);
    const StateGradients<T> states = state_gradients(0);
    const int64_t in_block = chunks_of(steps_), steps = tape_.order.steps();
    const BackwardTask<T> block = block_before(0, steps - k / in_block * steps_);
    const BackwardTask<T> part = chunk_of(block, k % in_block);
    if (k == 0) states.begin(everything);
    // An empty one, behind all steps of a short block, would only make dh0 once more.
    if (part.step_begin < part.step_end) cell_.backward(part, everything, steps);
    gradients_.input(0, part, alone, 0);
    if (drops())
      dropout_.part(dx_.data, dx_.data, size_t(part.step_begin * dx_.step), size_t(part.step_end * dx_.step));
    hand_over();
    if (k % in_block + 1 < in_block) return;
    finish_block(0, block, alone, 0);
    if (block.step_begin > 0) return;
    states.end(everything);
    gradients_.finish_rows(alone);
  }
  int64_t chunks() const { return (tape_.order.steps() + steps_ - 1) / steps_ * chunks_of(steps_); }

  // What is left when the threads are done.
  void finish() const {
    gradients_.biases();
    if (plan_.split == Split::layers || !drops()) return;
    dropout_.all(dx_.data, dx_.data, size_t(tape_.order.steps() * dx_.step), plan_.threads);
  }

 private:
  int sweep(int direction) const { return c_.sweep(layer_, direction); }
  int64_t chunks_of(int64_t steps) const { return (steps + plan_.chunk - 1) / plan_.chunk; }

  bool drops() const { return dropout_.p > 0 && layer_ > 0; }

  StateGradients<T> state_gradients(int d) const {
    const DirectionWork<T>& w = work_.directions[d];
    return {c_, tape_.order, call_, sweep(d), w.dstate, w.carry};
  }

  // The block of time that ends there.
  BackwardTask<T> block_before(int d, int64_t end) const {
    const PackedWeights<T>& p = net_.weights(sweep(d));
    const Trace<T>& t = tape_.sweeps[size_t(sweep(d))];
    const DirectionWork<T>& w = work_.directions[d];
    const Rows<T>& y = tape_.layers[size_t(layer_)].output;
    BackwardTask<T> task = {};
    task.schedule = tape_.order.schedule(d == 1);
    task.step_begin = std::max<int64_t>(0, end - steps_), task.step_end = end;
    task.hidden = c_.hidden, task.output = c_.output(), task.pitch = pitch_, task.output_pitch = output_pitch_;
    if (!unpacked_) task.ut = p.ut, task.projection_t = p.projection_t;
    task.dy = dy_;
    if (dy_.data) task.dy.data += d * c_.output();
    task.y = {y.data + d * c_.output(), y.step, y.row, y.packed};
    task.h0 = t.h0, task.c0 = t.c0, task.tape_gates = t.gates, task.tape_cell = t.tape_cell;
    task.dgates = w.dgates, task.dprojected = w.dprojected, task.dstate = w.dstate, task.carry = w.carry;
    task.to_start = call_.dh0 && !unpacked_;
    return task;
  }

  // Chunk k of a block, from its end on: its dgates are followed by those of the steps behind them. The last ones of a
  // short block are empty.
  BackwardTask<T> chunk_of(BackwardTask<T> block, int64_t k) const {
    const int64_t end = std::max(block.step_begin, block.step_end - k * plan_.chunk);
    const int64_t begin = std::max(block.step_begin, end - plan_.chunk);
    const ptrdiff_t rows = tape_.order.rows(block.step_begin, begin);
    block.dgates += rows * cell_.accumulators * pitch_;
    if (block.dprojected) block.dprojected += rows * output_pitch_;
    block.step_begin = begin, block.step_end = end;
    return block;
  }

  void direction_pass(int d, const Team& team, int thread) {
    const Share share = share_of(plan_.split, tape_.order, team);
    const StateGradients<T> states = state_gradients(d);
    states.begin(share);
    for (int64_t end = tape_.order.steps(); end > 0; end -= steps_) {
      const BackwardTask<T> block = block_before(d, end);
      if (plan_.split == Split::pipeline && team.size > 1) {
        sweep_ahead(d, block, team, thread);
      } else {
        cell_.backward(block, share, tape_.order.steps());
        team.wait();
        gradients_.input(d, block, team, thread);
        if (unpacked_ && call_.dh0) gradients_.initial_state(d, block, team, thread);
      }
      finish_block(d, block, team, thread);
    }
    states.end(share);
  }

  // One thread sweeps, and the others make dx of the steps it has left behind; when it is done, it helps. dx is the one
  // gradient that is no sum over time, so its rows may be made in any order and by anybody.
  void sweep_ahead(int d, const BackwardTask<T>& block, const Team& team, int thread) {
    const Team alone = {0, 1, nullptr};
    const Share everything = share_of(Split::none, tape_.order, alone);
    const int64_t chunks = chunks_of(block.step_end - block.step_begin);
    Progress& progress = progress_[d];
    for (int64_t k = 0; team.rank == 0 && k < chunks; ++k) {
      cell_.backward(chunk_of(block, k), everything, tape_.order.steps());
      progress.swept.store(k + 1, std::memory_order_release);
    }
    for (int64_t k; (k = progress.taken.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      for (Spin spin; progress.swept.load(std::memory_order_acquire) <= k;) spin();
      gradients_.input(d, chunk_of(block, k), alone, thread);
    }
    team.wait();
    if (team.rank == 0) progress.swept = 0, progress.taken = 0;  // they meet once more before the next block
  }

  // Its norms, and the gradients of its weights. Then its first step becomes the one behind the next block's last.
  void finish_block(int d, const BackwardTask<T>& block, const Team& team, int thread) {
    gradients_.norms(d, block, team);
    gradients_.weights(d, block, team, thread);
    team.wait();
    if (block.step_begin == 0) return;
    const ptrdiff_t row_size = ptrdiff_t(cell_.accumulators) * pitch_;
    const int64_t next = std::max<int64_t>(0, block.step_begin - steps_);
    const int64_t live = tape_.order.rows(block.step_begin, block.step_begin + 1);
    T* const behind = block.dgates + tape_.order.rows(next, block.step_begin) * row_size;
    const Range mine = part_of(live, team.rank, team.size);
    std::copy(block.dgates + mine.begin * row_size, block.dgates + mine.end * row_size, behind + mine.begin * row_size);
    team.wait();
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
  const Dropout dropout_;
  const int pitch_, output_pitch_;
  const int64_t steps_;
  const BackwardWork<T> work_;
  const bool unpacked_;                // weights are read where they lie
  const LayerGradients<T> gradients_;  // which refers to work_
  Barrier barriers_[2];

  // Chunks of a block, counted from its last steps on.
  struct Progress {
    alignas(64) std::atomic<int64_t> swept{0};
    alignas(64) std::atomic<int64_t> taken{0};
  };
  Progress progress_[2];
};

}  // namespace fastrnn
