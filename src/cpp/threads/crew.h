// Threads of our own that help with work of microseconds to milliseconds. A region of the OpenMP
// run-time is no place for it: entering one takes half a microsecond when its threads still spin,
// and milliseconds when they have gone to sleep (LSTM H128, a step every 30 ms: 1,800 us with a
// region of two threads, 76 alone). Nobody waits long here for a helper that has not begun.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>

#include "threads/placement.h"
#include "threads/threads.h"

namespace fastrnn {

class Crew {
 public:
  // The one of this process. Its threads end with the last who holds it.
  static std::shared_ptr<Crew> shared();
  ~Crew();
  Crew(const Crew&) = delete;

  // Helpers stay awake for a millisecond after their last work; who calls again within a millisecond, or with work of
  // more than 200 us, has them woken or started, for calls to come. They fall asleep at once when a region begins: two
  // kinds of threads that spin keep each other from the cores, so whoever has a choice takes the region while its
  // threads are awake (LSTM B1 T100 H64 by the crew and a linear layer in a region: 325 us; both in regions 186, both
  // by the crew 150). What follows never throws, and may be called by several threads at once. `ns`: roughly what all
  // of it takes; 0: so little that nobody looks at the clock.

  // body(part) for every part in [0, parts), each once, with denormals flushed: part 0 on this thread, the others, in
  // order, on helpers that are awake and otherwise here.
  template <class Body>
  void share(int parts, double ns, Body&& body) noexcept {
    Parts job(parts);
    job.body = [](void* context, int part) { (*static_cast<std::remove_reference_t<Body>*>(context))(part); };
    job.context = &body;
    hand_out(job, ns);
  }

  // body(team) once on this thread, its rank 0, and at the same time on those of `threads` - 1 helpers that are awake,
  // or wake within a twentieth of `ns`: it may wait for the others of its team.
  template <class Body>
  void gather(int threads, double ns, Body&& body) noexcept {
    gather_within(ns / 20, threads, call_for(helpers_for(threads), ns), body);
  }

  // body(team, begin, end) for `steps` steps of `ns` each, by as many of `threads` threads as can be gathered. As long
  // as some are missing that have been woken only a few steps are taken at once, so that they may come later.
  template <class Body>
  void walk(int threads, int64_t steps, double ns, Body&& body) noexcept {
    const int64_t few = few_steps(ns);
    const int everybody = 1 + helpers_for(threads);
    for (int64_t begin = 0, end = 0; begin < steps; begin = end) {
      const double left = ns * double(steps - begin);
      const bool called = call_for(everybody - 1, left);
      gather_within(begin == 0 ? left / 20 : 0, threads, called, [&](const Team& team) {
        const int64_t last = team.size == everybody || !called ? steps : std::min(steps, begin + few);
        if (team.rank == 0) end = last;
        body(team, begin, last);
      });
    }
  }

  // Helpers that have been started.
  int size() const { return size_.load(std::memory_order_acquire); }

  // How long it takes the slowest helper of `threads` threads, while it spins, to find what it is offered: as a
  // multiple of what it takes one that shares a cache with the caller. 0: none of them was asked in the last 20 ms.
  double distance(int threads) const;

 private:
  static constexpr int kMost = 63;  // an offer is a bit of 64

  struct alignas(64) Job {  // one cache line travels
    void (*help)(Job&) = nullptr;
    void* context = nullptr;
    int64_t offered_at = 0;    // 0: nobody looked at the clock
    std::atomic<int> left{0};  // helpers that took the job and have left it: their last touch of it
  };

  struct Parts : Job {
    explicit Parts(int n);
    int run();  // how many parts it ran
    void (*body)(void* context, int part) = nullptr;
    const int parts;
    std::atomic<int> next{1};  // the first part that nobody has
  };

  struct Gathering : Job {
    Gathering();
    void (*body)(void* context, const Team& team) = nullptr;
    std::atomic<int> ranks{1};
    std::atomic<int> size{0};  // 0: not known yet
    Barrier barrier;
  };

  // How soon a helper answers: the least of a few in a row, since a longer time only says that it had lost its core.
  class Answers {
   public:
    void note(int64_t ns, int64_t now);  // by the helper alone
    int64_t lately(int64_t now) const;   // 0: not known

   private:
    int few_ = 0;
    int64_t least_ = INT64_MAX;
    std::atomic<int64_t> ns_{0}, at_{0};
  };

  struct alignas(64) Helper {
    std::atomic<Job*> offer{nullptr};
    std::atomic<bool> awake{false};
    Answers answers;
    KeptOff place;  // behind the lock
    std::thread* thread = nullptr;
  };

  Crew() = default;
  static int helpers_for(int threads) { return std::min({threads, available_threads(), kMost + 1}) - 1; }
  void hand_out(Parts& job, double ns) noexcept;
  // patience: ns; called: those who sleep have been.
  template <class Body>
  void gather_within(double patience, int threads, bool called, Body&& body) noexcept {
    Gathering job;
    job.body = [](void* context, const Team& team) { (*static_cast<std::remove_reference_t<Body>*>(context))(team); };
    job.context = &body;
    assemble(job, patience, threads, called);
  }
  void assemble(Gathering& job, double patience, int threads, bool called) noexcept;
  static int64_t few_steps(double ns);
  // Offers are a bit for each helper; awake: to none who sleeps. Who has taken the job is no longer offered it.
  uint64_t offer(Job& job, int helpers, bool awake) noexcept;
  void wait_for_answers(const Job& job, uint64_t offered, double patience) const noexcept;
  int withdraw(Job& job, uint64_t offered) noexcept;  // how many have taken it
  // Wakes helpers and starts those that are missing, where that is worth it; false: some stay asleep.
  bool call_for(int helpers, double ns) noexcept;
  bool start(Helper& helper) noexcept;
  void serve(Helper& helper) noexcept;
  void sleep(Helper& helper);

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
