// The forward pass over a sequence: layer after layer, or all of them, each some steps behind the one below.
#include <algorithm>
#include <deque>

#include "network/forward_layer.h"
#include "network/unpacked.h"

namespace fastrnn {
namespace {

template <class T>
void run_layer(const Network<T>& net, const Tape<T>& tape, int layer, const Plan& plan, const ForwardWork<T>& work) {
  ForwardLayer<T> forward(net, tape, layer, plan, work);
  if (forward.walks() && !region_threads_awake()) {
    forward.walk(net.crew());
  } else {
    net.spread(plan, plan.planned_ns * double(tape.order.steps()), forward);
  }
  forward.drop_output();
}

}  // namespace

template <class T>
void Network<T>::pass(const Tape<T>& tape) const {
  const Sequence<T>& call = tape.call;
  if (!forward_ready_ && suits_unpacked(config_, call)) {
    return forward_unpacked(config_, backend_, raw_.data(), tape, *pool_);
  }
  const Use use = tape.keeps || call.regions ? Use::training : Use::inference;
  const double distance = planned_distance(use == Use::inference ? crew_->distance(call.threads) : regions_distance());
  if (!forward_ready_) pack_forward(packing_threads(use, call.steps, call.batch, call.threads));
  const bool in_place = call.dropout > 0 && !tape.keeps;  // a layer reads what it wrote once more, at the next step
  const KeptPlans::Plans kept =
      kept_plans({call.steps, call.batch, tape.order.rows(), call.threads, use, distance, !in_place});
  const std::vector<Plan>& plans = *kept;
  const bool together = plans.front().split == Split::layers;
  // All that may fail comes first: the final states may be written where the initial ones lie.
  Few<ForwardWork<T>, 2> works(plans.size());
  const Loan memory = carved(*pool_, [&](Arena& arena) {
    const Arena begin = arena;
    for (size_t i = 0; i < plans.size(); ++i) {
      Arena own = together ? arena : begin;
      works[i] = ForwardWork<T>(own, *this, call.batch, plans[i]);
      arena.reach(own);
    }
  });
  if (tape.zeros) std::fill_n(tape.zeros, tape.zero_count(config_), T(0));
  if (!together) {
    for (size_t i = 0; i < plans.size(); ++i) run_layer(*this, tape, int(i), plans[i], works[i]);
    return;
  }
  std::deque<ForwardLayer<T>> stack;
  for (size_t i = 0; i < plans.size(); ++i) stack.emplace_back(*this, tape, int(i), plans[i], works[i]);
  run_together(plans.front(), stack.front().chunks(), Wavefront::Way::up, stack);
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

template void Network<float>::run(const Sequence<float>&) const;
template void Network<double>::run(const Sequence<double>&) const;
template std::unique_ptr<Tape<float>> Network<float>::forward(const Sequence<float>&) const;
template std::unique_ptr<Tape<double>> Network<double>::forward(const Sequence<double>&) const;
template void Network<float>::forward(const Sequence<float>&, char*) const;
template void Network<double>::forward(const Sequence<double>&, char*) const;

}  // namespace fastrnn
