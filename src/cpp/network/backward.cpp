// The backward pass through time: layer after layer from the top, or all of them, each some steps behind the one above.
#include <deque>

#include "network/backward_layer.h"
#include "network/unpacked.h"

namespace fastrnn {

template <class T>
void Network<T>::backward(const Tape<T>& tape, const Gradients<T>& call) const {
  const int64_t steps = tape.order.steps();
  const int batch = tape.order.batch();
  // (The border of C drops the lengths of a kept call; the order still knows.)
  // More rows than few only beside a pass forward that has packed nothing: packed weights are to be used again.
  const bool once =
      fits_one_group(config_, backend_, tape.call) || (!forward_ready_ && suits_unpacked(config_, tape.call));
  const bool unpacked = !backward_ready_ && !tape.order.ragged() && once;
  if (!unpacked && !backward_ready_) pack_backward(packing_threads(Use::backward, steps, batch, call.threads));
  const PlannedPass pass = {steps,        batch,         tape.order.rows(),
                            call.threads, Use::backward, planned_distance(regions_distance())};
  const KeptPlans::Plans kept =
      unpacked ? std::make_shared<const std::vector<Plan>>(unpacked_plans(config_, kernels(), batch, call.threads))
               : kept_plans(pass);
  const std::vector<Plan>& plans = *kept;
  const BackwardMemory<T> memory(*this, tape, call, plans, *pool_);
  if (memory.together()) {
    std::deque<BackwardLayer<T>> stack;
    for (int layer = 0; layer < config_.layers; ++layer) {
      stack.emplace_back(*this, tape, call, layer, memory, plans[size_t(layer)]);
    }
    run_together(plans.front(), stack.front().chunks(), Wavefront::Way::down, stack);
    for (const BackwardLayer<T>& layer : stack) layer.finish();
    return;
  }
  for (int layer = config_.layers - 1; layer >= 0; --layer) {
    BackwardLayer<T> body(*this, tape, call, layer, memory, plans[size_t(layer)], unpacked);
    parallel(plans[size_t(layer)].threads, body);
    body.finish();
  }
}

template <class T>
void Network<T>::backward(const Sequence<T>& call, const char* reserve, const Gradients<T>& gradients) const {
  Tape<T> tape(config_, call, true);
  Arena arena(const_cast<char*>(reserve));  // it is only read
  tape.lay_out(arena, config_, cell());
  backward(tape, gradients);
}

template void Network<float>::backward(const Tape<float>&, const Gradients<float>&) const;
template void Network<double>::backward(const Tape<double>&, const Gradients<double>&) const;
template void Network<float>::backward(const Sequence<float>&, const char*, const Gradients<float>&) const;
template void Network<double>::backward(const Sequence<double>&, const char*, const Gradients<double>&) const;

}  // namespace fastrnn
