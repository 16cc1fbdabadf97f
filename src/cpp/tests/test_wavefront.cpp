// Every chunk of every layer is done once, behind the chunk before it and that of the layer below or above, by one
// thread at a time.
#include <thread>
#include <vector>

#include "tests/check.h"
#include "threads/wavefront.h"

namespace fastrnn::tests {
namespace {

// Numbers without an atomic between them: who is let through too early shows in them, and to ThreadSanitizer.
class Stack {
 public:
  Stack(int layers, int64_t chunks, int threads, Wavefront::Way way)
      : wavefront_(layers, chunks, threads, way),
        up_(way == Wavefront::Way::up),
        chunks_(chunks),
        done_(size_t(layers)),
        behind_(size_t(layers)),
        values_(size_t(layers)) {
    for (auto& values : values_) values.resize(size_t(chunks), -1);
  }

  void run(int rank) {
    wavefront_.run(rank, [&](int layer, int64_t chunk, const auto& hand_over) {
      for (int i = 0; i < (chunk / 50 + layer) % 3 * 40; ++i) relax();  // now one layer is slower, now another
      int64_t& done = done_[size_t(layer)];
      const int64_t read = from(layer) ? values_[size_t(up_ ? layer - 1 : layer + 1)][size_t(chunk)] : chunk;
      values_[size_t(layer)][size_t(chunk)] = chunk == done ? read + 1 : -1;
      ++done;
      hand_over();
      for (int i = 0; i < chunk % 7; ++i) relax();  // what nobody waits for
      ++behind_[size_t(layer)];
    });
  }

  // Of all that was to be done, how many chunks went wrong.
  int64_t wrong() const {
    int64_t wrong = 0;
    for (size_t layer = 0; layer < done_.size(); ++layer) {
      wrong += done_[layer] != chunks_ || behind_[layer] != chunks_;
      for (int64_t k = 0; k < chunks_; ++k) wrong += values_[layer][size_t(k)] != k + from(int(layer)) + 1;
    }
    return wrong;
  }

 private:
  // Layers between the one where it begins and this one.
  int from(int layer) const { return up_ ? layer : int(done_.size()) - 1 - layer; }

  Wavefront wavefront_;
  const bool up_;
  const int64_t chunks_;
  std::vector<int64_t> done_, behind_;
  std::vector<std::vector<int64_t>> values_;
};

// Helpers come with the caller or, late, when it may be done; or nobody comes.
void check_wave(int layers, int64_t chunks, Wavefront::Way way, int helpers, bool late) {
  Stack stack(layers, chunks, 4, way);
  std::vector<std::thread> others;
  for (int i = 0; i < helpers; ++i) {
    others.emplace_back([&stack, late, i] {
      for (int moment = 0; late && moment < 2000 * (i + 1); ++moment) relax();
      stack.run(i + 1);
    });
  }
  stack.run(0);
  for (std::thread& other : others) other.join();
  CHECK(stack.wrong() == 0, "%d layers, %d chunks, %d helpers: %d chunks are wrong", layers, int(chunks), helpers,
        int(stack.wrong()));
}

}  // namespace

void test_wavefront() {
  for (const int layers : {1, 2, 3, 5}) {
    for (const int64_t chunks : {0, 1, 2, 7, 400}) {
      for (int helpers = 0; helpers < 4; ++helpers) {
        for (const Wavefront::Way way : {Wavefront::Way::up, Wavefront::Way::down}) {
          check_wave(layers, chunks, way, helpers, false);
          check_wave(layers, chunks, way, helpers, true);
        }
      }
    }
  }
}

}  // namespace fastrnn::tests
