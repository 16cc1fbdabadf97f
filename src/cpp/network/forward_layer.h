// The pass forward over one layer.
#pragma once

#include <algorithm>

#include "network/dropout.h"
#include "network/network.h"
#include "network/share.h"
#include "network/states.h"
#include "threads/pipeline.h"

namespace fastrnn {

// What a layer needs beyond the tape, in memory that layers use in turn, but for those that are at work together.
template <class T>
struct ForwardWork {
  ForwardWork() = default;
  ForwardWork(Arena& arena, const Network<T>& net, int batch, const Plan& plan)
      : slots(plan.hoist && plan.split == Split::pipeline ? Pipeline::kSlots : 1) {
    if (!plan.hoist) return;
    const size_t rows = size_t(plan.chunk) * size_t(batch);
    const size_t values = rows * size_t(net.cell().gates * padded(net.config().hidden));
    hoisted = arena.take<T>(values * size_t(plan.teams * slots));
    in = arena.take<const T*>(rows * size_t(plan.threads));
    out = arena.take<T*>(rows * size_t(plan.threads));
  }

  int slots = 0;
  T* hoisted = nullptr;    // [teams][slots][chunk rows][gates][pitch]
  const T** in = nullptr;  // [threads][chunk rows]
  T** out = nullptr;
};

// One layer of a pass, run by every thread of a region, or by the crew: part by part, or some steps after others.
template <class T>
class ForwardLayer {
 public:
  ForwardLayer(const Network<T>& net, const Tape<T>& tape, int layer, const Plan& plan, const ForwardWork<T>& work)
      : net_(net),
        tape_(tape),
        layer_(layer),
        plan_(plan),
        dropout_{tape.call.dropout, tape.call.seed, layer},
        pitch_(padded(net.config().hidden)),
        work_(work) {}

  void operator()(const Team& all) {
    each_direction(plan_, net_.config().directions(), all, barriers_,
                   [&](int direction, const Team& team) { direction_pass(direction, team, all.rank); });
  }

  // Whether the crew may take it in pieces of time, each of them by those who are awake then.
  bool walks() const {
    return plan_.by_crew && plan_.teams == 1 && (plan_.split == Split::rows || plan_.split == Split::units);
  }

  void walk(Crew& crew) const {
    const int directions = net_.config().directions();
    for (int direction = 0; direction < directions; ++direction) {
      const ForwardTask<T> task = make_task(direction);
      crew.walk(
          plan_.threads, tape_.order.steps(), plan_.planned_ns / directions,
          [&](const Team& team, int64_t begin, int64_t end) { steps(task, direction, team, team.rank, begin, end); });
    }
  }

  // Chunk k of chunks(), and what dropout makes of it, by one thread.
  template <class HandOver>
  void chunk(int64_t k, const HandOver& hand_over) const {
    const int64_t begin = k * plan_.chunk, end = std::min(begin + plan_.chunk, tape_.order.steps());
    steps(make_task(0), 0, {0, 1, nullptr}, 0, begin, end);
    if (drops()) dropout_.part(output().data, dropped(), size_t(begin * output().step), size_t(end * output().step));
    hand_over();
  }
  int64_t chunks() const { return (tape_.order.steps() + plan_.chunk - 1) / plan_.chunk; }

  // What dropout makes of all the output.
  void drop_output() const {
    if (drops()) dropout_.all(output().data, dropped(), size_t(tape_.order.steps() * output().step), plan_.threads);
  }

 private:
  const Rows<T>& output() const { return tape_.layers[size_t(layer_)].output; }
  bool drops() const { return dropout_.p > 0 && layer_ + 1 < net_.config().layers; }
  T* dropped() const { return const_cast<T*>(tape_.layers[size_t(layer_) + 1].input.data); }

  void direction_pass(int direction, const Team& team, int thread) {
    const ForwardTask<T> task = make_task(direction);
    if (plan_.split == Split::pipeline && team.size > 1) return pipelined(task, direction, team, thread);
    steps(task, direction, team, thread, 0, tape_.order.steps());
  }

  // This thread's part of steps [begin, end), chunk by chunk.
  void steps(const ForwardTask<T>& task, int direction, const Team& team, int thread, int64_t begin,
             int64_t end) const {
    const Share share = share_of(plan_.split, tape_.order, team);
    if (begin == 0) states(direction).begin(share);
    T* const hoisted = plan_.hoist ? buffer(direction, 0) : nullptr;
    const int64_t most = plan_.hoist ? plan_.chunk : end - begin;
    for (int64_t step = begin; step < end; step += most) {
      const ForwardTask<T> part = steps_of(task, step, std::min(end, step + most), hoisted);
      if (hoisted) hoist(part, hoisted, share, thread);
      net_.cell().forward(part, share);
    }
    if (end == tape_.order.steps()) states(direction).end(share, task.y, task.schedule);
  }

  // One thread multiplies the inputs of a few steps while another walks the steps before. The input's weights and the
  // recurrent ones stay each in a cache of their own, and nobody waits at a barrier.
  void pipelined(const ForwardTask<T>& task, int direction, const Team& team, int thread) {
    const Share everything = share_of(Split::none, tape_.order, {0, 1, nullptr});
    // The first chunk is half as long: nothing else is done while it is prepared.
    const int64_t all = tape_.order.steps(), missing = plan_.chunk / 2, chunks = (all + missing - 1) / plan_.chunk + 1;
    const auto begin = [&](int64_t k) { return std::clamp<int64_t>(k * plan_.chunk - missing, 0, all); };
    const auto chunk = [&](int64_t k) { return steps_of(task, begin(k), begin(k + 1), buffer(direction, k)); };
    const auto prepare = [&](int64_t k) { hoist(chunk(k), buffer(direction, k), everything, thread); };
    const auto use = [&](int64_t k) {
      ForwardTask<T> part = chunk(k);
      part.handed_over = true;
      net_.cell().forward(part, everything);
    };
    if (team.rank == 0) {
      states(direction).begin(everything);
      pipelines_[direction].use_all(chunks, prepare, use);
      states(direction).end(everything, task.y, task.schedule);
    }
    if (team.rank == 1) pipelines_[direction].prepare_all(chunks, prepare);
  }

  ForwardTask<T> steps_of(ForwardTask<T> task, int64_t begin, int64_t end, const T* hoisted) const {
    task.step_begin = begin, task.step_end = end;
    task.hoisted = hoisted, task.hoisted_rows = tape_.order.batch();
    return task;
  }

  States<T> states(int direction) const {
    return States<T>(net_.config(), tape_, net_.config().sweep(layer_, direction));
  }

  // Where bias + W x of chunk k lies.
  T* buffer(int direction, int64_t k) const {
    const int slot = plan_.teams == 2 ? direction : 0;
    const ptrdiff_t rows = ptrdiff_t(plan_.chunk) * tape_.order.batch();
    return work_.hoisted + (slot * work_.slots + k % work_.slots) * rows * net_.cell().gates * pitch_;
  }

  ForwardTask<T> make_task(int direction) const {
    ForwardTask<T> task = net_.forward_task(net_.config().sweep(layer_, direction));
    lay_task(net_.config(), tape_, layer_, direction, task);
    return task;
  }

  // Computes bias + W x of a share's rows and units for the steps of the task. A place keeps its row of the buffer from
  // chunk to chunk, so threads need not meet in between.
  void hoist(const ForwardTask<T>& task, T* hoisted, const Share& share, int thread) const {
    const Schedule& s = task.schedule;
    const size_t rows = size_t(plan_.chunk) * size_t(tape_.order.batch());
    const ptrdiff_t row_size = ptrdiff_t(net_.cell().gates) * pitch_;
    const T** const in = work_.in + size_t(thread) * rows;
    T** const out = work_.out + size_t(thread) * rows;
    int n = 0;
    for (int64_t step = task.step_begin; step < task.step_end; ++step) {
      const int64_t live = s.first[step + 1] - s.first[step];
      for (int place = share.row_begin; place < std::min<int64_t>(share.row_end, live);
           place += share.row_stride, ++n) {
        in[n] = row_at(task.x, s, step, place);
        out[n] = hoisted + ((step - task.step_begin) * task.hoisted_rows + place) * row_size;
      }
    }
    const InputTask<T> product = {in, out, task.input, task.hidden, task.pitch, task.w, task.bias};
    net_.cell().input_product(product, units_part(n, share.unit_part, share.unit_parts));
  }

  const Network<T>& net_;
  const Tape<T>& tape_;
  const int layer_;
  const Plan plan_;
  const Dropout dropout_;
  const int pitch_;
  const ForwardWork<T> work_;
  Barrier barriers_[2];
  Pipeline pipelines_[2];  // a direction each, since one serves once
};

}  // namespace fastrnn
