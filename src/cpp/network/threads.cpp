#include "network/threads.h"

#include <chrono>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(_WIN32)
#include <windows.h>
#else
#include <pthread.h>
#include <sched.h>
#endif

namespace fastrnn {
namespace {

std::atomic<bool> threads_used{false}, is_child{false};

constexpr int64_t kSpins = 5'000'000;  // ns: libgomp's threads at most, as far as seen
std::atomic<unsigned> region_count{0};
std::atomic<int64_t> region_end{0};  // 0: long ago

#if !defined(_WIN32)
const int at_fork = pthread_atfork(nullptr, nullptr, [] {
  if (threads_used.load()) is_child.store(true);
});
#endif

void yield() {
#if defined(_WIN32)
  SwitchToThread();
#else
  sched_yield();
#endif
}

}  // namespace

bool forked() { return is_child.load(std::memory_order_relaxed); }

void note_threads() { threads_used.store(true, std::memory_order_relaxed); }

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int64_t nanoseconds() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
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
  static const int cores = omp_get_num_procs();  // a system call of two microseconds: once
  return forked() ? 1 : cores;
#else
  return 1;
#endif
}

#if defined(__linux__)
void KeptOff::begin(std::thread& thread) {
  const pthread_t id = thread.native_handle();
  const int here = sched_getcpu();
  if (kept_ || here < 0 || pthread_getaffinity_np(id, sizeof before_, &before_) != 0) return;
  cpu_set_t others = before_;
  CPU_CLR(size_t(here), &others);
  kept_ = CPU_COUNT(&others) > 0 && pthread_setaffinity_np(id, sizeof others, &others) == 0;
}

void KeptOff::end() {
  if (kept_) pthread_setaffinity_np(pthread_self(), sizeof before_, &before_);
  kept_ = false;
}
#else
void KeptOff::begin(std::thread&) {}
void KeptOff::end() {}
#endif

void Spin::operator()() {
  if (rounds_ < 4000) {
    ++rounds_;
    relax();
  } else {
    yield();
  }
}

void Barrier::wait(int size) {
  const int round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (Spin spin; round_.load(std::memory_order_acquire) == round;) spin();
}

void parallel(int threads, void (*body)(void* context, const Team&), void* context) {
  Barrier barrier;
  if (threads <= 1 || forked()) {
    const FlushDenormals flush;
    return body(context, Team{0, 1, &barrier});
  }
#if defined(_OPENMP)
  note_threads();
  region_count.fetch_add(1, std::memory_order_relaxed);
#pragma omp parallel num_threads(threads)
  {
    const FlushDenormals flush;
    body(context, Team{omp_get_thread_num(), omp_get_num_threads(), &barrier});
  }
  region_end.store(nanoseconds(), std::memory_order_relaxed);
#else
  const FlushDenormals flush;
  body(context, Team{0, 1, &barrier});
#endif
}

}  // namespace fastrnn
