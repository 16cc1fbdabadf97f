#include "tests/interpose.h"

#include <atomic>
#include <cstddef>

namespace {

std::atomic<long> allocations{0}, frees{0}, locks{0};
thread_local long fails_after = -1;
thread_local bool failed = false;

// Counts; false when this one is to fail.
[[maybe_unused]] bool allocates() {
  ++allocations;
  if (fails_after < 0) return true;
  if (fails_after > 0) return --fails_after, true;
  failed = true;
  return false;
}

}  // namespace

namespace fastrnn::tests {

Calls calls() { return {allocations.load(), frees.load(), locks.load()}; }

void fail_allocations(long n) { fails_after = n, failed = false; }
bool allocation_failed() { return failed; }

}  // namespace fastrnn::tests

#if defined(__GLIBC__) && !defined(FASTRNN_SANITIZED)

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

bool fastrnn::tests::interposes() { return true; }

namespace {

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// Hidden, as Clang takes them to be where all else is, they would be nobody's but this program's.
#pragma GCC visibility push(default)
extern "C" {

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t n) { return allocates() ? __libc_malloc(n) : nullptr; }
void* calloc(size_t n, size_t size) { return allocates() ? __libc_calloc(n, size) : nullptr; }
void* realloc(void* p, size_t n) { return allocates() ? __libc_realloc(p, n) : nullptr; }
void* memalign(size_t alignment, size_t n) { return allocates() ? __libc_memalign(alignment, n) : nullptr; }
void* aligned_alloc(size_t alignment, size_t n) { return memalign(alignment, n); }
int posix_memalign(void** p, size_t alignment, size_t n) {
  *p = memalign(alignment, n);
  return *p ? 0 : ENOMEM;
}
void free(void* p) {
  frees += p != nullptr;
  __libc_free(p);
}

int pthread_mutex_lock(pthread_mutex_t* m) {
  static const auto real = next<int(pthread_mutex_t*)>("pthread_mutex_lock");
  ++locks;
  return real(m);
}
int pthread_mutex_trylock(pthread_mutex_t* m) {
  static const auto real = next<int(pthread_mutex_t*)>("pthread_mutex_trylock");
  ++locks;
  return real(m);
}
int pthread_rwlock_rdlock(pthread_rwlock_t* m) {
  static const auto real = next<int(pthread_rwlock_t*)>("pthread_rwlock_rdlock");
  ++locks;
  return real(m);
}
int pthread_rwlock_wrlock(pthread_rwlock_t* m) {
  static const auto real = next<int(pthread_rwlock_t*)>("pthread_rwlock_wrlock");
  ++locks;
  return real(m);
}
int pthread_cond_wait(pthread_cond_t* c, pthread_mutex_t* m) {
  static const auto real = next<int(pthread_cond_t*, pthread_mutex_t*)>("pthread_cond_wait");
  ++locks;
  return real(c, m);
}
int pthread_cond_signal(pthread_cond_t* c) {
  static const auto real = next<int(pthread_cond_t*)>("pthread_cond_signal");
  ++locks;
  return real(c);
}
}
#pragma GCC visibility pop

#else

bool fastrnn::tests::interposes() { return false; }

#endif
