// The backward pass through time: layer after layer from the top, or all of them, each some steps behind the one above.
#include <deque>

#include "network/backward_layer.h"
#include "network/unpacked.h"

namespace fastrnn {

template <class T>
void Network<T>::backward(const Tape<T>& tape, const Gradients<T>& call) const {
  const int64_t steps = tape.order.steps();
  const int batch = tape.order.batch(), layers = config_.layers;
  // (The border of C drops the lengths of a kept call; the order still knows.)
  // More rows than few only beside a pass forward that has packed nothing: packed weights are to be used again.
  const bool once =
      few_unpacked(config_, backend_, tape.call) || (!forward_ready_ && suits_unpacked(config_, tape.call));
  const bool unpacked = !backward_ready_ && !tape.order.ragged() && once;
  if (!unpacked) pack_backward(packing_threads(Use::backward, steps, batch, call.threads));
  // All that may fail comes before anything is written.
  const std::vector<Plan> plans =
      unpacked ? unpacked_plans(config_, kernels(), batch, call.threads)
               : this->plans(steps, batch, tape.order.rows(), call.threads, Use::backward, regions_distance());
  const bool together = plans.front().split == Split::layers;
  // Layers at work together have memory of their own each, others the same in turn: what a BackwardWork writes there
  // when it is made stays until the next one is made.
  const auto make_work = [&](Arena& arena, int layer) {
    return BackwardWork<T>(arena, *this, tape.order, layer, plans[size_t(layer)], layer || call.dx.data);
  };
  std::vector<size_t> begins(plans.size());
  Arena sizes;
  for (int layer = 0; layer < layers; ++layer) {
    Arena own = together ? sizes : Arena();
    begins[size_t(layer)] = own.used();
    make_work(own, layer);
    sizes.reach(own);
  }
  const Loan memory(*pool_, sizes.used());
  const auto work_of = [&](int layer) {
    Arena own(memory.data() + begins[size_t(layer)]);
    return make_work(own, layer);
  };
  // dx of a layer is dy of the one below: two buffers in turn, or one each.
  const ptrdiff_t row = config_.width(), step = row * batch;
  const int buffers = std::min(together ? layers : 2, layers - 1);
  std::vector<T*> between(size_t(std::max(1, buffers)));
  const Loan gradients = carved(*pool_, [&](Arena& arena) {
    for (int i = 0; i < buffers; ++i) between[size_t(i)] = arena.take<T>(size_t(steps), size_t(step));
  });
  const auto dx_of = [&](int layer) {
    return layer ? Rows<T>{between[size_t((layer - 1) % buffers)], step, row} : call.dx;
  };
  const auto dy_of = [&](int layer) -> Rows<const T> {
    if (layer + 1 == layers) return call.dy;
    return {dx_of(layer + 1).data, step, row};
  };
  if (together) {
    std::deque<BackwardLayer<T>> stack;
    for (int layer = 0; layer < layers; ++layer) {
      const size_t i = size_t(layer);
      stack.emplace_back(*this, tape, call, layer, dy_of(layer), dx_of(layer), plans[i], work_of(layer));
    }
    run_together(plans.front(), stack.front().chunks(), Wavefront::Way::down, stack);
    for (const BackwardLayer<T>& layer : stack) layer.finish();
    return;
  }
  for (int layer = layers - 1; layer >= 0; --layer) {
    const size_t i = size_t(layer);
    BackwardLayer<T> body(*this, tape, call, layer, dy_of(layer), dx_of(layer), plans[i], work_of(layer), unpacked);
    parallel(plans[i].threads, body);
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
