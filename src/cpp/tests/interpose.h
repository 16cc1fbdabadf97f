// malloc, free and pthread's locks, counted, and an allocator that fails on demand: with glibc, and without sanitizers,
// which bring their own. Elsewhere the counts stay zero.
#pragma once

namespace fastrnn::tests {

struct Calls {
  long allocations, frees, locks;
};

bool interposes();
Calls calls();

// The n-th allocation from now on, by this thread, fails, and all after it; -1: none does. True when one has failed.
void fail_allocations(long n);
bool allocation_failed();

}  // namespace fastrnn::tests
