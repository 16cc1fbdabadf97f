// Threads of one native call: a parallel region, a barrier, and the floating-point mode the kernels run in.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastrnn {

// Cores this process may use, by its affinity and its quota of time; 1 without
// OpenMP, and in a child forked from a process that had threads. An OpenMP run-time
// does not survive a fork, and it may be somebody else (torch) who has used it.
int available_threads();
bool has_openmp();
bool forked();        // whether this is such a child
void note_threads();  // that this process has used some

// Bytes of a core's caches; 32 KiB of data and 1 MiB where the system does not tell.
int first_level_bytes();
double second_level_bytes();

void relax();           // a moment, for the other thread of a core
int64_t nanoseconds();  // of a clock that only goes forward

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
  alignas(64) std::atomic<int> round_{0};
};

// The floating-point mode of all arithmetic here, whatever the caller's, which it restores: round to nearest, or
// threads that started with another mode would compute other bits; nothing traps; denormals are zero (FTZ and DAZ), or
// a decaying state would cost a hundred cycles an operation. (Of a result that rounding lifts to the smallest normal
// number x86 keeps that number and ARM makes zero.)
class KernelMode {
 public:
#if defined(__x86_64__)
  KernelMode() : saved_(__builtin_ia32_stmxcsr()) {
    __builtin_ia32_ldmxcsr(0x9fc0u);  // FTZ, all exceptions masked, DAZ
  }
  ~KernelMode() { __builtin_ia32_ldmxcsr(unsigned(saved_)); }
#elif defined(__aarch64__)
  KernelMode() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(uint64_t(1) << 24));  // FZ: results and inputs
  }
  ~KernelMode() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
  KernelMode() : saved_(0) {}
  ~KernelMode() {}
#endif
  KernelMode(const KernelMode&) = delete;

 private:
  uint64_t saved_;
};

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

// Some threads of a region: this one's rank among them, and where they meet.
struct Team {
  int rank, size;
  Barrier* barrier;
  void wait() const {
    if (size > 1) barrier->wait(size);
  }
};

// body(team) on `threads` threads (fewer when the run-time grants fewer), each with denormals flushed.
void parallel(int threads, void (*body)(void* context, const Team&), void* context);

// How far apart the threads of regions are, by a barrier that was timed in the last 20 ms (a virtual core may have
// moved since): what it costs to meet at a step, as a multiple of what it costs cores that share a cache. 0: not known.
double regions_distance();

// How many regions of more than one thread there have been, and whether the threads of the last one still spin: for
// some milliseconds they keep a core from anybody else's.
unsigned regions();
bool region_threads_awake();

template <class Body>
void parallel(int threads, Body&& body) {
  using Function = std::remove_reference_t<Body>;
  parallel(threads, [](void* context, const Team& team) { (*static_cast<Function*>(context))(team); }, &body);
}

}  // namespace fastrnn
