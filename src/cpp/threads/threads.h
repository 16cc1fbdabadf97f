// Threads of one native call: how many there may be, and parallel regions of them.
#pragma once

#include <cassert>
#include <cstdint>
#include <type_traits>

#include "system/kernel_mode.h"
#include "threads/barrier.h"

namespace fastrnn {

// Cores this process may use, by its affinity and its quota of time; 1 without
// OpenMP, and in a child forked from a process that had threads. An OpenMP run-time
// does not survive a fork, and it may be somebody else (torch) who has used it, which
// is seen on Linux alone.
int available_threads();
bool has_openmp();
bool forked();        // whether this is such a child
void note_threads();  // that this process has used some

// Some threads of a region: this one's rank among them, and where they meet. No barrier, null: they have parts that may
// run one after the other, as the crew shares them, and must not wait.
struct Team {
  int rank, size;
  Barrier* barrier;
  void wait() const {
    assert(size == 1 || barrier);
    if (size > 1) barrier->wait(size);
  }
};

// One of `parts` nearly equal parts of n, to be had by a thread of a rank among so many.
struct Range {
  int64_t begin, end;
};
inline Range part_of(int64_t n, int64_t part, int64_t parts) { return {n * part / parts, n * (part + 1) / parts}; }

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
