#include "threads/threads.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "system/clock.h"
#include "threads/guarded_mode.h"

#if defined(_OPENMP)
#include <omp.h>

#include "system/once.h"
#include "system/quota.h"
#include "threads/placement.h"
#endif
#if !defined(_WIN32)
#include <pthread.h>
#include <sys/stat.h>
#endif

namespace fastrnn {
namespace {

std::atomic<bool> threads_used{false}, is_child{false};

constexpr int64_t kSpins = 5'000'000;  // ns: libgomp's threads at most, as far as seen
std::atomic<unsigned> region_count{0};
std::atomic<int64_t> region_end{0};  // 0: long ago

constexpr int64_t kBelieved = 20'000'000;  // ns that a timed barrier counts
std::atomic<int64_t> distance_at{-kBelieved};
std::atomic<double> last_distance{0};

#if !defined(_WIN32)
void before_fork() {
#if defined(__linux__)
  struct stat tasks;  // a link for each thread, and two more
  if (stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink > 3) threads_used.store(true);
#endif
}

const int at_fork = pthread_atfork(before_fork, nullptr, [] {
  if (threads_used.load()) is_child.store(true);
});
#endif

#if defined(_OPENMP)
// The threads of a region that may have been asleep: see KeptOff for where they wake. One
// behind its caller would take turns with it, a turn for each barrier: LSTM T100 B1 H128,
// two threads, once every 30 ms: 9,800 us. So the caller lets it run, and it moves: 650.
class Assembly {
 public:
  void operator()(const Team& team) {
    if (team.rank == 0) return wait_for(team.size - 1);
    leave(callers_core_);
    here_.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  void wait_for(int others) const {
    constexpr int64_t awake = 5'000, asleep = 200'000;  // ns: by then they come who spin, and mostly those who sleep
    const int64_t begin = nanoseconds();
    for (int64_t passed = 0; passed < asleep; passed = nanoseconds() - begin) {
      if (here_.load(std::memory_order_relaxed) == others) return;
      passed < awake ? relax() : yield();
    }
  }

  const int callers_core_ = this_core();
  std::atomic<int> here_{0};
};

constexpr int64_t kMeasured = 10'000'000;  // ns: how often a barrier is timed
// ns for each core that meets and does nothing else: 80 for two measured where a cache line takes 32 from core to core,
// 340 where it takes 150; some 130 are near, where it takes 55.
constexpr double kNearBarrier = 65;
// Who meets has also written something for the others to read. Where the barrier of two takes 340 ns, a step of LSTM
// H128 takes 1,600 more than where it takes 80, of GRU 1,900, of LSTM H64 backward 1,300. (With 4, LSTM H128, which
// still gains by two threads then, is left to one.)
constexpr double kWritten = 2.5;
// Times the barrier of a region whose threads are all there: the least of
// some, since one that took longer only says that a thread had lost its core.
void measure_distance(const Team& team) {
  constexpr int times = 3, meetings = 4;
  int64_t least = INT64_MAX;
  for (int i = 0; i < times; ++i) {
    const int64_t begin = nanoseconds();
    for (int meeting = 0; meeting < meetings; ++meeting) team.wait();
    least = std::min(least, nanoseconds() - begin);
  }
  if (team.rank > 0) return;
  const double farther = double(least) / meetings / (kNearBarrier * team.size) - 1;
  last_distance.store(1 + kWritten * std::max(0.0, farther), std::memory_order_relaxed);
  distance_at.store(nanoseconds(), std::memory_order_relaxed);
}
#endif

}  // namespace

bool forked() { return is_child.load(std::memory_order_relaxed); }

void note_threads() { threads_used.store(true, std::memory_order_relaxed); }

double regions_distance() {
  if (nanoseconds() - distance_at.load(std::memory_order_relaxed) > kBelieved) return 0;
  return last_distance.load(std::memory_order_relaxed);
}

unsigned regions() { return region_count.load(std::memory_order_relaxed); }

bool region_threads_awake() {
  int64_t end = region_end.load(std::memory_order_relaxed);
  if (end == 0) return false;
  if (nanoseconds() - end < kSpins) return true;
  region_end.compare_exchange_strong(end, 0);  // so that the next look needs no clock
  return false;
}

bool has_openmp() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

int available_threads() {
#if defined(_OPENMP)
  static Once<int> cores;  // it reads files
  if (forked()) return 1;
  // A quota is rounded down, since a thread that computes or spins takes a whole core.
  return cores.get([] { return int(std::clamp(cpu_quota() + 0.01, 1.0, double(omp_get_num_procs()))); });
#else
  return 1;
#endif
}

void parallel(int threads, void (*body)(void* context, const Team&), void* context) {
  Barrier barrier;
  if (threads <= 1 || forked()) {
    const KernelMode mode;
    return body(context, Team{0, 1, &barrier});
  }
#if defined(_OPENMP)
  note_threads();
  const bool may_sleep = !region_threads_awake();
  const bool measures = nanoseconds() - distance_at.load(std::memory_order_relaxed) > kMeasured;
  Assembly assemble;
  region_count.fetch_add(1, std::memory_order_relaxed);
  const GuardedMode::Lifted lifted;
#pragma omp parallel num_threads(threads)
  {
    const KernelMode mode;
    const Team team = {omp_get_thread_num(), omp_get_num_threads(), &barrier};
    if (may_sleep) assemble(team);
    if (measures) measure_distance(team);
    body(context, team);
  }
  region_end.store(nanoseconds(), std::memory_order_relaxed);
#else
  const KernelMode mode;
  body(context, Team{0, 1, &barrier});
#endif
}

}  // namespace fastrnn
