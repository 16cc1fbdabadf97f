// Where threads wait for each other.
#pragma once

#include <atomic>

namespace fastrnn {

void relax();  // a moment, for the other thread of a core
void yield();  // for other threads that want this core

// Waits by spinning, because a step takes microseconds and a futex wakes in tens of them; it yields after a while so
// that more threads than cores still go on.
class Spin {
 public:
  void operator()();

 private:
  int rounds_ = 0;
};

// Threads meet here once a step.
class Barrier {
 public:
  void wait(int size);

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};  // it wraps: a training run meets more than 2^31 times
};

}  // namespace fastrnn
