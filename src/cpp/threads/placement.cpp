#include "threads/placement.h"

#if defined(__linux__)
#include <pthread.h>
#endif

namespace fastrnn {

#if defined(__linux__)
namespace {

// Takes `core` out of those where a thread may run; false where it is the only one, or where that is not allowed.
bool keep_off(pthread_t thread, int core, cpu_set_t& before) {
  if (core < 0 || pthread_getaffinity_np(thread, sizeof before, &before) != 0) return false;
  cpu_set_t others = before;
  CPU_CLR(size_t(core), &others);
  return CPU_COUNT(&others) > 0 && pthread_setaffinity_np(thread, sizeof others, &others) == 0;
}

}  // namespace

int this_core() { return sched_getcpu(); }

void leave(int core) {
  cpu_set_t before;
  if (this_core() != core || !keep_off(pthread_self(), core, before)) return;
  pthread_setaffinity_np(pthread_self(), sizeof before, &before);
}

void KeptOff::begin(std::thread& thread) {
  if (!kept_) kept_ = keep_off(thread.native_handle(), this_core(), before_);
}

void KeptOff::end() {
  if (kept_) pthread_setaffinity_np(pthread_self(), sizeof before_, &before_);
  kept_ = false;
}
#else
int this_core() { return -1; }
void leave(int) {}
void KeptOff::begin(std::thread&) {}
void KeptOff::end() {}
#endif

void forget_priority() {
#if defined(__linux__)
  int policy = SCHED_OTHER;
  sched_param priority = {};
  pthread_getschedparam(pthread_self(), &policy, &priority);
  if (policy != SCHED_FIFO && policy != SCHED_RR) return;
  priority.sched_priority = 0;
  pthread_setschedparam(pthread_self(), SCHED_OTHER, &priority);
#endif
}

}  // namespace fastrnn
