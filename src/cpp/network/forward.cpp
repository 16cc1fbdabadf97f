// The forward pass over a sequence, layer after layer.
#include <algorithm>

#include "network/dropout.h"
#include "network/network.h"
#include "network/pipeline.h"
#include "network/share.h"
#include "network/states.h"

namespace fastrnn {
namespace {

// What a layer needs beyond the tape, in memory that all layers use in turn.
template <class T>
struct ForwardWork {
  ForwardWork(Arena& arena, const Network<T>& net, int batch, const Plan& plan)
      : slots(plan.hoist && plan.split == Split::pipeline ? Pipeline::kSlots : 1) {
    if (!plan.hoist) return;
    const size_t rows = size_t(plan.chunk) * size_t(batch);
    const size_t values = rows * size_t(net.cell().gates * padded(net.config().hidden));
    hoisted = arena.take<T>(values * size_t(plan.teams * slots));
    in = arena.take<const T*>(rows * size_t(plan.threads));
    out = arena.take<T*>(rows * size_t(plan.threads));
  }

  int slots;
  T* hoisted = nullptr;    // [teams][slots][chunk rows][gates][pitch]
  const T** in = nullptr;  // [threads][chunk rows]
  T** out = nullptr;
};

// One layer of a pass, run by every thread of a region, or by the crew: part by part, or some steps after others.
template <class T>
class ForwardLayer {
 public:
  ForwardLayer(const Network<T>& net, Tape<T>& tape, int layer, const Plan& plan, Arena memory)
      : net_(net),
        tape_(tape),
        layer_(layer),
        plan_(plan),
        pitch_(padded(net.config().hidden)),
        work_(memory, net, tape.order.batch(), plan) {}

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

 private:
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
      const ForwardTask<T> part = part_of(task, step, std::min(end, step + most), hoisted);
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
    const auto chunk = [&](int64_t k) { return part_of(task, begin(k), begin(k + 1), buffer(direction, k)); };
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

  ForwardTask<T> part_of(ForwardTask<T> task, int64_t begin, int64_t end, const T* hoisted) const {
    task.step_begin = begin, task.step_end = end;
    task.hoisted = hoisted, task.hoisted_rows = tape_.order.batch();
    return task;
  }

  States<T> states(int direction) const {
    return States<T>(net_, tape_, layer_ * net_.config().directions() + direction);
  }

  // Where bias + W x of chunk k lies.
  T* buffer(int direction, int64_t k) const {
    const int slot = plan_.teams == 2 ? direction : 0;
    const ptrdiff_t rows = ptrdiff_t(plan_.chunk) * tape_.order.batch();
    return work_.hoisted + (slot * work_.slots + k % work_.slots) * rows * net_.cell().gates * pitch_;
  }

  ForwardTask<T> make_task(int direction) const {
    const Config& c = net_.config();
    const int sweep = layer_ * c.directions() + direction;
    const Trace<T>& t = tape_.sweeps[size_t(sweep)];
    ForwardTask<T> task = net_.forward_task(sweep);
    task.schedule = tape_.order.schedule(direction == 1);
    task.x = tape_.layers[size_t(layer_)].input;
    task.y = tape_.layers[size_t(layer_)].output;
    task.y.data += direction * c.output();
    task.h0 = t.h0, task.c0 = t.c0, task.cell = t.cell;
    task.tape_gates = t.gates, task.tape_cell = t.tape_cell, task.unprojected = t.unprojected;
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
    net_.cell().input_product(product, {0, n, 1, share.unit_part, share.unit_parts, nullptr, nullptr});
  }

  const Network<T>& net_;
  Tape<T>& tape_;
  const int layer_;
  const Plan plan_;
  const int pitch_;
  const ForwardWork<T> work_;
  Barrier barriers_[2];
  Pipeline pipelines_[2];  // a direction each, since one serves once
};

}  // namespace

template <class T>
void Network<T>::pass(Tape<T>& tape) const {
  const Sequence<T>& call = tape.call;
  const Use use = tape.keeps || call.regions ? Use::training : Use::inference;
  const double distance = use == Use::inference ? crew_->distance(call.threads) : regions_distance();
  // All that may fail comes first: the final states may be written where the initial ones lie.
  std::vector<Plan> plans;
  plans.reserve(size_t(config_.layers));
  size_t bytes = 0;
  for (int layer = 0; layer < config_.layers; ++layer) {
    plans.push_back(this->plan(layer, call.steps, call.batch, tape.order.rows(), call.threads, use, distance));
    Arena sizes;
    ForwardWork<T>(sizes, *this, call.batch, plans.back());
    bytes = std::max(bytes, sizes.used());
  }
  const Loan work(*pool_, bytes);
  if (tape.zeros) std::fill_n(tape.zeros, tape.zero_count(config_), T(0));
  for (int layer = 0; layer < config_.layers; ++layer) {
    const Plan& plan = plans[size_t(layer)];
    ForwardLayer<T> forward(*this, tape, layer, plan, Arena(work.data()));
    if (forward.walks() && !region_threads_awake()) {
      forward.walk(*crew_);
    } else {
      spread(plan, plan.planned_ns * double(call.steps), forward);
    }
    const Rows<T>& output = tape.layers[size_t(layer)].output;
    if (layer + 1 == config_.layers || call.dropout <= 0) continue;
    const size_t n = size_t(call.steps) * size_t(call.batch) * size_t(config_.width());
    T* const dropped = const_cast<T*>(tape.layers[size_t(layer) + 1].input.data);
    if (dropped != output.data) std::copy_n(output.data, n, dropped);
    dropout(dropped, n, call.dropout, call.seed, layer, plan.threads);
  }
}

template <class T>
void Network<T>::run(const Sequence<T>& call) const {
  Tape<T> tape(config_, call, false);
  const Loan memory = carved(*pool_, [&](Arena& arena) { tape.lay_out(arena, config_, cell()); });
  pass(tape);
}

template <class T>
std::unique_ptr<Tape<T>> Network<T>::forward(const Sequence<T>& call) const {
  auto tape = std::make_unique<Tape<T>>(config_, call, true);
  tape->pool = pool_;
  tape->memory = carved(*pool_, [&](Arena& arena) { tape->lay_out(arena, config_, cell()); });
  pass(*tape);
  return tape;
}

template <class T>
void Network<T>::forward(const Sequence<T>& call, char* reserve) const {
  Tape<T> tape(config_, call, true);
  Arena arena(reserve);
  tape.lay_out(arena, config_, cell());
  pass(tape);
}

template <class T>
void Network<T>::backward(const Sequence<T>& call, const char* reserve, const Gradients<T>& gradients) const {
  Tape<T> tape(config_, call, true);
  Arena arena(const_cast<char*>(reserve));  // it is only read
  tape.lay_out(arena, config_, cell());
  backward(tape, gradients);
}

template <class T>
size_t Network<T>::reserve_bytes(const Sequence<T>& call) const {
  Tape<T> tape(config_, call, true);
  Arena sizes;
  tape.lay_out(sizes, config_, cell());
  return sizes.used();
}

template void Network<float>::run(const Sequence<float>&) const;
template void Network<double>::run(const Sequence<double>&) const;
template std::unique_ptr<Tape<float>> Network<float>::forward(const Sequence<float>&) const;
template std::unique_ptr<Tape<double>> Network<double>::forward(const Sequence<double>&) const;
template void Network<float>::forward(const Sequence<float>&, char*) const;
template void Network<double>::forward(const Sequence<double>&, char*) const;
template void Network<float>::backward(const Sequence<float>&, const char*, const Gradients<float>&) const;
template void Network<double>::backward(const Sequence<double>&, const char*, const Gradients<double>&) const;
template size_t Network<float>::reserve_bytes(const Sequence<float>&) const;
template size_t Network<double>::reserve_bytes(const Sequence<double>&) const;

}  // namespace fastrnn
