#include "threads/barrier.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <sched.h>
#endif

namespace fastrnn {

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void yield() {
#if defined(_WIN32)
  SwitchToThread();
#else
  sched_yield();
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
  const unsigned round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (Spin spin; round_.load(std::memory_order_acquire) == round;) spin();
}

}  // namespace fastrnn
