// One thread prepares chunks of work ahead of another that uses them up.
#pragma once

#include <atomic>
#include <cstdint>

#include "threads/barrier.h"

namespace fastrnn {

// Chunk k lies in slot k % kSlots, and whoever takes it prepares it: a helper that comes late, or never, holds up
// nothing, for the user prepares what nobody has taken.
class Pipeline {
 public:
  static constexpr int kSlots = 4;

  // For the user: use(chunk) for all chunks, in order.
  template <class Prepare, class Use>
  void use_all(int64_t chunks, const Prepare& prepare, const Use& use) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      if (!is_ready(chunk)) {
        if (take(chunk)) {
          prepare(chunk);
        } else {
          for (Spin spin; !is_ready(chunk);) spin();
        }
      }
      use(chunk);
      used_.store(chunk + 1, std::memory_order_release);
    }
  }

  // For a helper: prepare(chunk) for those that nobody has taken.
  template <class Prepare>
  void prepare_all(int64_t chunks, const Prepare& prepare) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      for (Spin spin; used_.load(std::memory_order_acquire) + kSlots <= chunk;) spin();
      if (!take(chunk)) continue;
      prepare(chunk);
      slots_[chunk % kSlots].ready.store(chunk + 1, std::memory_order_release);
    }
  }

 private:
  bool take(int64_t chunk) {
    return taken_.load(std::memory_order_relaxed) == chunk && taken_.compare_exchange_strong(chunk, chunk + 1);
  }
  bool is_ready(int64_t chunk) const {
    return slots_[chunk % kSlots].ready.load(std::memory_order_acquire) == chunk + 1;
  }

  struct alignas(64) Slot {
    std::atomic<int64_t> ready{0};  // one more than the chunk that lies here
  };
  alignas(64) std::atomic<int64_t> taken_{0};  // the first chunk that nobody has
  alignas(64) std::atomic<int64_t> used_{0};
  Slot slots_[kSlots];
};

}  // namespace fastrnn
