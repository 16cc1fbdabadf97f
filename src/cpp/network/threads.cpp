#include "network/threads.h"

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
#pragma omp parallel num_threads(threads)
  {
    const FlushDenormals flush;
    body(context, Team{omp_get_thread_num(), omp_get_num_threads(), &barrier});
  }
#else
  const FlushDenormals flush;
  body(context, Team{0, 1, &barrier});
#endif
}

}  // namespace fastrnn
