// A stack of recurrent layers: packed weights, and the passes over a sequence. Knows threads, directions and memory, no
// vectors. Letters as in tasks.h; D directions, L layers. All arrays are float or double.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "network/call.h"
#include "network/config.h"
#include "network/share.h"
#include "network/tape.h"
#include "network/weights.h"
#include "plan/kept_plans.h"
#include "threads/crew.h"
#include "threads/threads.h"
#include "threads/wavefront.h"

namespace fastrnn {

// Defined in three files: network.cpp (weights, plans), forward.cpp (run, both forwards and what the tape takes) and
// backward.cpp (both backwards). The passes over one layer are forward_layer.h and backward_layer.h.
template <class T>
class Network {
 public:
  // For this machine's core, or another one that is to be planned for.
  Network(const Config& config, const Backend& backend, const Core* core = nullptr);

  // weights in torch's order, sweep after sweep: weight_ih, weight_hh, [bias_ih, bias_hh], [weight_hr]. They must live,
  // unchanged, until the next pack or pack_backward: until then each backward of a single step of few rows
  // (network/unpacked.h) reads them, and the first of any other call packs their transposes.
  void pack(const T* const* weights, int threads = 1);
  // The same for weights of which few passes are to come: nothing is packed before a pass needs it. A single step reads
  // them where they lie (network/unpacked.h), so they must not change while it runs.
  void take(const T* const* weights);

  // Packs what is not packed yet of weights that were taken; or, so that the raw weights may change before backward,
  // the transposes.
  void pack_forward(int threads) const;
  void pack_backward(int threads) const;
  // How many of `threads` should pack for a pass to come: all while cores are near each other, else as many as the pass
  // takes, since each then multiplies with what it has packed itself.
  int packing_threads(Use use, int64_t steps, int batch, int threads) const;

  void run(const Sequence<T>& call) const;
  std::unique_ptr<Tape<T>> forward(const Sequence<T>& call) const;
  void backward(const Tape<T>& tape, const Gradients<T>& call) const;

  // The same for a caller who keeps the tape in memory of its own, aligned to kAlign: `reserve` holds nothing but
  // numbers. backward reads x, y, lengths, dropout and seed of its call; they must be those of forward.
  void forward(const Sequence<T>& call, char* reserve) const;
  void backward(const Sequence<T>& call, const char* reserve, const Gradients<T>& gradients) const;

  Plan plan(int layer, const PlannedPass& pass) const;
  std::vector<Plan> plans(const PlannedPass& pass) const;  // of all layers
  LayerShape shape(int layer, Use use) const;              // what plans know of it
  Crew& crew() const { return *crew_; }
  // body(team) for each of a plan's threads, in a region or by the crew; ns: roughly what all of it takes.
  template <class Body>
  void spread(const Plan& plan, double ns, Body& body) const {
    if (!plan.by_crew || region_threads_awake()) return parallel(plan.threads, body);
    if (plan.split == Split::units) return crew_->gather(plan.threads, ns, body);
    crew_->share(plan.threads, ns, [&](int part) { body({part, plan.threads, nullptr}); });
  }
  // stack[layer].chunk(k, hand_over) for all layers and chunks, as the plan of one of them says.
  template <class Stack>
  void run_together(const Plan& plan, int64_t chunks, Wavefront::Way way, Stack& stack) const {
    Wavefront wavefront(int(stack.size()), chunks, plan.threads, way);
    auto part = [&](const Team& team) {
      wavefront.run(team.rank, [&](int layer, int64_t chunk, const auto& hand_over) {
        stack[size_t(layer)].chunk(chunk, hand_over);
      });
    };
    spread(plan, plan.planned_ns * double(plan.chunk * chunks) * double(stack.size()), part);
  }
  const Config& config() const { return config_; }
  const Backend& backend() const { return backend_; }
  const Kernels<T>& kernels() const { return kernels_of<T>(backend_); }
  const CellKernels<T>& cell() const { return kernels().cells[int(config_.cell)]; }
  const PackedWeights<T>& weights(int sweep) const { return packed_[size_t(sweep)]; }
  RawWeights<const T> raw(int sweep) const { return raw_weights(config_, raw_.data(), sweep); }
  ForwardTask<T> forward_task(int sweep) const;  // its sizes and weights; the rest is the caller's
  size_t packed_bytes() const {
    const std::lock_guard<std::mutex> lock(mutex_);  // another thread may be packing
    return packed_bytes_ + bf16_block_.bytes();
  }

 private:
  void pass(const Tape<T>& tape) const;
  KeptPlans::Plans kept_plans(const PlannedPass& pass) const {
    return kept_plans_[int(pass.use)].of(pass, [&] { return plans(pass); });
  }
  void lay_out_forward(Arena& arena) const;
  void find_bf16() const;
  // pack(packed, input, raw, team) for each sweep, by every thread of a team.
  template <class Pack>
  void pack_all(int threads, Pack pack) const;

  Config config_;
  const Backend& backend_;
  size_t packed_bytes_;  // for the passes forward
  Core core_;            // measured where the weights do not lie in its own caches
  std::vector<const T*> raw_;
  std::shared_ptr<BlockPool> pool_;
  std::shared_ptr<Crew> crew_;
  // Filled by the first pass of either kind that needs it, behind the lock.
  mutable std::mutex mutex_;
  mutable std::atomic<bool> forward_ready_{false}, backward_ready_{false};
  mutable Block forward_block_, backward_block_, bf16_block_;  // the last from the first weights that are bfloat16
  mutable std::vector<PackedWeights<T>> packed_;
  mutable KeptPlans kept_plans_[kUses];  // by Use
};

}  // namespace fastrnn
