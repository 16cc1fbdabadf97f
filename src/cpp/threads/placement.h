// On which core a thread runs, and before whom.
#pragma once

#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastrnn {

// A thread that is being woken stays off its waker's core until it runs. Linux may put it there, behind a waker that
// computes on, though other cores idle: in a virtual machine every second thread that had slept for 10 ms did not run
// within a millisecond; kept off, all of them ran after 70 us. Elsewhere, and where it is not allowed, nothing happens.
class KeptOff {
 public:
  void begin(std::thread& thread);  // by the waker
  void end();                       // by the thread: it may run again where it might before

 private:
#if defined(__linux__)
  cpu_set_t before_;
  bool kept_ = false;
#endif
};

// A thread that a real-time thread has started is one no more: it spins
// between its jobs, which would keep a core from all ordinary threads.
void forget_priority();

// The core of this thread, -1 where nobody tells.
int this_core();

// Moves this thread to another core when it is on this one and may be elsewhere.
void leave(int core);

}  // namespace fastrnn
