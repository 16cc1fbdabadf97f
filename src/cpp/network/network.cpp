#include "network/network.h"

#include <algorithm>

namespace fastrnn {

template <class T>
Network<T>::Network(const Config& config, const Backend& backend, const Core* core)
    : config_(config),
      backend_(backend),
      core_(core ? *core : Core::usual()),
      pool_(std::make_shared<BlockPool>()),
      crew_(Crew::shared()),
      packed_(size_t(config.sweeps())) {
  Arena sizes;
  lay_out_forward(sizes);
  packed_bytes_ = sizes.used();
  if (!core && double(packed_bytes_) > core_.l2_bytes / 2) core_ = Core::measured(backend);
}

template <class T>
void Network<T>::lay_out_forward(Arena& arena) const {
  for (int sweep = 0; sweep < config_.sweeps(); ++sweep) {
    packed_[size_t(sweep)].lay_out_forward(arena, kernels(), config_, config_.input_of_sweep(sweep));
  }
}

template <class T>
template <class Pack>
void Network<T>::pack_all(int threads, Pack pack) const {
  constexpr double flops_per_byte = 8;  // packing moves a byte in the time of about so many operations
  const int workers = threads_for(flops_per_byte * double(packed_bytes_), kernels().lanes, threads);
  parallel(workers, [&](const Team& team) {
    for (int sweep = 0; sweep < config_.sweeps(); ++sweep) {
      pack(packed_[size_t(sweep)], config_.input_of_sweep(sweep), raw(sweep), team);
    }
  });
}

template <class T>
void Network<T>::pack(const T* const* weights, int threads) {
  take(weights);
  pack_forward(threads);
}

template <class T>
void Network<T>::take(const T* const* weights) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const T* const* const end = weights + config_.weight_count();
  const bool taken = !forward_ready_ && !backward_ready_ && std::equal(raw_.begin(), raw_.end(), weights, end);
  if (taken) return;  // steps may be reading them
  raw_.assign(weights, end);
  forward_ready_ = backward_ready_ = false;
}

template <class T>
void Network<T>::pack_forward(int threads) const {
  if (forward_ready_.load(std::memory_order_acquire)) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (forward_ready_) return;
  if (!forward_block_.data()) forward_block_ = carved([&](Arena& arena) { lay_out_forward(arena); });
  find_bf16();
  pack_all(threads, [&](const auto& packed, int input, const RawWeights<const T>& raw, const Team& team) {
    packed.pack_forward(kernels(), config_, input, raw, team.rank, team.size, packed_bytes_ > kMostPackedInCaches);
    if (packed.is_bf16) packed.pack_bf16(backend_, config_, input, team.rank, team.size);
  });
  forward_ready_.store(true, std::memory_order_release);
}

template <class T>
void Network<T>::find_bf16() const {
  const auto all = [&](int sweep) {
    const RawWeights<const T> w = raw(sweep);
    const size_t rows = size_t(cell().gates) * size_t(config_.hidden), outputs = size_t(config_.output());
    return all_bf16(w.hh, rows * outputs) && all_bf16(w.ih, rows * size_t(config_.input_of_sweep(sweep))) &&
           (!w.hr || all_bf16(w.hr, outputs * size_t(config_.hidden)));
  };
  for (int sweep = 0; sweep < config_.sweeps(); ++sweep) {
    const bool found = packed_bytes_ >= kLeastHalved && all(sweep);
    if (found && !bf16_block_.data()) {
      const auto lay_out = [&](Arena& arena) {
        for (int s = 0; s < config_.sweeps(); ++s) {
          packed_[size_t(s)].lay_out_bf16(arena, kernels(), config_, config_.input_of_sweep(s));
        }
      };
      bf16_block_ = block_if_any([&] { return carved(lay_out); });
    }
    packed_[size_t(sweep)].is_bf16 = found && bf16_block_.data();
  }
  for (KeptPlans& kept : kept_plans_) kept.forget();
}

template <class T>
void Network<T>::pack_backward(int threads) const {
  if (backward_ready_.load(std::memory_order_acquire)) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (backward_ready_) return;
  if (!backward_block_.data()) {
    backward_block_ = carved([&](Arena& arena) {
      for (int sweep = 0; sweep < config_.sweeps(); ++sweep) {
        packed_[size_t(sweep)].lay_out_backward(arena, kernels(), config_, config_.input_of_sweep(sweep));
      }
    });
  }
  pack_all(threads, [&](const auto& packed, int input, const RawWeights<const T>& raw, const Team& team) {
    packed.pack_backward(kernels(), config_, input, raw, team.rank, team.size, packed_bytes_ > kMostPackedInCaches);
  });
  backward_ready_.store(true, std::memory_order_release);
}

template <class T>
ForwardTask<T> Network<T>::forward_task(int sweep) const {
  pack_forward(1);  // for streams of weights that were taken
  const PackedWeights<T>& p = weights(sweep);
  ForwardTask<T> task = sized_task<T>(config_, config_.layer_of(sweep));
  task.near = core_.l1_bytes;
  task.w = p.w, task.bias = p.bias, task.u = p.u, task.projection = p.projection;
  task.bf16 = p.bf16();
  return task;
}

template <class T>
int Network<T>::packing_threads(Use use, int64_t steps, int batch, int threads) const {
  const double distance = planned_distance(regions_distance());
  if (distance == 1) return threads;
  int most = 1;
  for (int layer = 0; layer < config_.layers; ++layer) {
    most = std::max(most, plan(layer, {steps, batch, steps * batch, threads, use, distance}).threads);
  }
  return most;
}

template <class T>
LayerShape Network<T>::shape(int layer, Use use) const {
  const Kernels<T>& k = kernels();
  LayerShape shape = {};
  shape.input = config_.input_of(layer), shape.hidden = config_.hidden, shape.output = config_.output();
  shape.directions = config_.directions(), shape.projects = config_.projection > 0;
  shape.gates = cell().gates, shape.row_tiles = cell().row_tiles, shape.tile_rows = k.tile_rows;
  shape.is_bf16 = use != Use::backward;  // the transposes are floats
  for (int d = 0; d < config_.directions(); ++d) shape.is_bf16 &= weights(config_.sweep(layer, d)).is_bf16;
  shape.lanes = k.lanes, shape.element_bytes = int(sizeof(T)), shape.core = core_;
  return shape;
}

template <class T>
Plan Network<T>::plan(int layer, const PlannedPass& pass) const {
  return plan_layer(shape(layer, pass.use), pass);
}

template <class T>
std::vector<Plan> Network<T>::plans(const PlannedPass& pass) const {
  std::vector<Plan> plans;
  bool together = pass.stacks;
  plans.reserve(size_t(config_.layers));
  for (int layer = 0; layer < config_.layers; ++layer) {
    plans.push_back(plan(layer, pass));
    together = together && stackable(shape(layer, pass.use));
  }
  const double ns = together ? stacked_ns(plans, pass) : 0;
  for (int layer = 0; ns > 0 && layer < config_.layers; ++layer) {
    Plan& plan = plans[size_t(layer)];
    plan = plan_stacked(shape(layer, pass.use), pass, config_.layers, ns, plan);
  }
  return plans;
}

// Each file instantiates what it defines. `template class` would be all of
// it once more where files are compiled as one unit, and Clang refuses that.
template Network<float>::Network(const Config&, const Backend&, const Core*);
template Network<double>::Network(const Config&, const Backend&, const Core*);
template void Network<float>::pack(const float* const*, int);
template void Network<double>::pack(const double* const*, int);
template void Network<float>::take(const float* const*);
template void Network<double>::take(const double* const*);
template void Network<float>::pack_forward(int) const;
template void Network<double>::pack_forward(int) const;
template void Network<float>::lay_out_forward(Arena&) const;
template void Network<double>::lay_out_forward(Arena&) const;
template void Network<float>::find_bf16() const;
template void Network<double>::find_bf16() const;
template void Network<float>::pack_backward(int) const;
template void Network<double>::pack_backward(int) const;
template int Network<float>::packing_threads(Use, int64_t, int, int) const;
template int Network<double>::packing_threads(Use, int64_t, int, int) const;
template LayerShape Network<float>::shape(int, Use) const;
template LayerShape Network<double>::shape(int, Use) const;
template std::vector<Plan> Network<float>::plans(const PlannedPass&) const;
template std::vector<Plan> Network<double>::plans(const PlannedPass&) const;
template Plan Network<float>::plan(int, const PlannedPass&) const;
template Plan Network<double>::plan(int, const PlannedPass&) const;
template ForwardTask<float> Network<float>::forward_task(int) const;
template ForwardTask<double> Network<double>::forward_task(int) const;

}  // namespace fastrnn
