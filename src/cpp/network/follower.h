// Packed weights that follow raw ones of somebody else, who may change them at any time without a word (an optimizer,
// a NumPy view, another process): each use compares a fingerprint of their contents with that of what was packed.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "network/network.h"

namespace fastrnn {

template <class T>
class Follower {
 public:
  // The shape of them all: nobody compares it with that of the network kept.
  explicit Follower(const Config& config) : config_(config) {}

  // A network packed with what the weights (as in Network::pack) hold now; it stays
  // so while the pointer is held. Threads may ask at the same time. Repacks in
  // place where nobody holds the last network. steps, batch: of the pass to come.
  std::shared_ptr<const Network<T>> follow(const Backend& backend, const T* const* weights, int64_t steps, int batch,
                                           int threads);
  // Whether these weights have changed in the last few times that somebody asked, as far as some of their values tell.
  bool changed(const Backend& backend, const T* const* weights);
  // A pass without a tape, by packed weights or, where it reads them only once, by those where they lie.
  void run(const Backend& backend, const T* const* weights, const Sequence<T>& call);
  // Both passes of a step that reads weights where they lie (suits_unpacked); reserve as in Network.
  void forward_unpacked(const Backend& backend, const T* const* weights, const Sequence<T>& call, char* reserve);
  void backward_unpacked(const Backend& backend, const T* const* weights, const Sequence<T>& call, const char* reserve,
                         const Gradients<T>& gradients);
  int64_t packings() const { return packings_.load(std::memory_order_relaxed); }

 private:
  const Config config_;
  std::mutex mutex_;
  std::shared_ptr<Network<T>> network_;
  std::unique_ptr<Network<T>> spare_;  // which packs nothing: its memory serves the next pass back of a single step
  std::vector<const T*> weights_;
  uint64_t fingerprint_ = 0, sampled_ = 0;
  int repeats_ = 0;
  BlockPool pool_;  // of passes that pack nothing
  std::atomic<int64_t> packings_{0};
};

}  // namespace fastrnn
