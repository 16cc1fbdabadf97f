// Threads of our own that help with work of microseconds. A region of the OpenMP run-time is no place for it: entering one
// takes half a microsecond when its threads still spin, and milliseconds when they have gone to sleep (LSTM H128, a step
// every 30 ms: 1,800 us with a region of two threads, 76 alone). Nobody waits here for a helper that has not begun.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

namespace fastrnn {

class Crew {
 public:
  // The one of this process. Its threads end with the last who holds it.
  static std::shared_ptr<Crew> shared();
  ~Crew();
  Crew(const Crew&) = delete;

  // body(part) for every part in [0, parts), each once, with denormals flushed: part 0 on this thread, the others, in
  // order, on helpers that are awake and otherwise here. Helpers stay awake for a millisecond after their last part; who
  // calls again within a millisecond, or with work of more than 200 us, has them woken or started, for calls to come. They
  // fall asleep at once when a region begins: two kinds of threads that spin keep each other from the cores, so whoever
  // has a choice takes the region while its threads are awake (LSTM B1 T100 H64 and a linear layer in turn: 186 us in
  // regions, 325 with the crew beside them).
  // Never throws, may be called by several threads at once. `ns`: roughly what all parts take.
  template <class Body>
  void share(int parts, double ns, const Body& body) noexcept {
    Job job = {[](const void* context, int part) { (*static_cast<const Body*>(context))(part); }, &body, parts};
    share(job, ns);
  }

  // Helpers that have been started.
  int size() const { return size_.load(std::memory_order_acquire); }

 private:
  struct alignas(64) Job {  // one cache line travels
    void (*body)(const void* context, int part);
    const void* context;
    int parts;
    std::atomic<int> next{1};  // the first part that nobody has
    std::atomic<int> left{0};  // helpers that took the job and have left it: their last touch of it
    int work() noexcept;       // how many parts it ran
  };

  struct alignas(64) Helper {
    std::atomic<Job*> offer{nullptr};
    std::thread* thread = nullptr;
  };

  Crew() = default;
  void share(Job& job, double ns) noexcept;
  void call_for(int helpers, double ns) noexcept;
  bool start(Helper& helper) noexcept;
  void serve(Helper& helper) noexcept;
  void sleep();

  static constexpr int kMost = 63;  // an offer is a bit of 64
  Helper helpers_[kMost];
  std::atomic<int> size_{0};
  alignas(64) std::atomic<int> asleep_{0};  // and not called yet
  std::atomic<int64_t> called_at_{INT64_MIN / 2};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // of what follows
  std::condition_variable call_;
  uint64_t calls_ = 0;
};

}  // namespace fastrnn
