// Layers of a stack at work at the same time, each some steps behind the one it reads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "threads/barrier.h"

namespace fastrnn {

// Each layer walks its chunks in order, and chunk k of one needs chunk k of the layer below it, in a pass back of the
// one above. A thread keeps the layer it has, whose weights lie in its caches, while there is something to do, and else
// takes the first that nobody has; one that is at home with another thread it leaves to that one until it has come.
// Homes are the same in both passes, so that a thread finds what it has written. A helper that comes late, or never,
// holds up nothing.
class Wavefront {
 public:
  enum class Way { up, down };

  Wavefront(int layers, int64_t chunks, int threads, Way way)
      : layers_(size_t(layers)), seats_(size_t(threads)), chunks_(chunks), way_(way) {}

  // body(layer, chunk, hand_over) for what is ready and nobody has, until all is handed over; by each thread once.
  // A body calls hand_over() when others may read what it made, and may go on with what they do not wait for.
  template <class Body>
  void run(int rank, const Body& body) {
    Seat& seat = seats_[size_t(rank)];
    seat.state.store(kComing, std::memory_order_relaxed);
    int mine = -1, waited = 0;
    for (Spin spin; !all_handed_over();) {
      if (!ready(mine) && !change(rank, mine, waited < kPatience)) {
        spin(), waited = std::min(waited + 1, kPatience);
        continue;
      }
      seat.state.store(kCame, std::memory_order_relaxed);
      while (ready(mine)) {
        const int64_t chunk = next(mine);
        body(mine, chunk, [&] { layers_[size_t(mine)].next.store(chunk + 1, std::memory_order_release); });
      }
      spin = Spin();
    }
  }

 private:
  static constexpr int kPatience = 40;     // rounds, some 2 us, for a thread that is not here yet
  enum State { kAbsent, kComing, kCame };  // came: has had a layer

  struct alignas(64) Layer {
    std::atomic<int64_t> next{0};  // chunk; those before it are handed over
    std::atomic<bool> taken{false};
  };
  struct alignas(64) Seat {
    std::atomic<State> state{kAbsent};
  };

  int size() const { return int(layers_.size()); }
  int64_t next(int layer) const { return layers_[size_t(layer)].next.load(std::memory_order_acquire); }
  bool all_handed_over() const { return next(way_ == Way::up ? size() - 1 : 0) == chunks_; }
  bool ready(int layer) const {
    if (layer < 0 || next(layer) == chunks_) return false;
    const int before = way_ == Way::up ? layer - 1 : layer + 1;
    return before < 0 || before == size() || next(before) > next(layer);
  }

  // Whether a layer is better left to the thread it is at home with.
  bool expected(int home, bool patient) const {
    const State state = seats_[size_t(home)].state.load(std::memory_order_relaxed);
    return state == kComing || (state == kAbsent && patient);
  }

  // Gives up a layer for another one with something to do.
  bool change(int rank, int& mine, bool patient) {
    for (int layer = 0; layer < size(); ++layer) {
      const int home = layer % int(seats_.size());
      if (layer == mine || !ready(layer) || (home != rank && expected(home, patient))) continue;
      if (layers_[size_t(layer)].taken.exchange(true, std::memory_order_acquire)) continue;
      if (mine >= 0) layers_[size_t(mine)].taken.store(false, std::memory_order_release);
      mine = layer;
      return true;
    }
    return false;
  }

  std::vector<Layer> layers_;
  std::vector<Seat> seats_;  // by rank
  const int64_t chunks_;
  const Way way_;
};

}  // namespace fastrnn
