// A stream gives the bits of the sequence, and a step takes no memory.
#include "stream.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "tests/check.h"
#include "tests/problem.h"

namespace {
std::atomic<long> allocations{0};
}

// The interposed allocator counts; sanitizers bring their own, and there only operator new is missed.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define FASTRNN_COUNTS_ALLOCATIONS 1
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) {
  ++allocations;
  return __libc_malloc(n);
}
void* calloc(size_t n, size_t size) {
  ++allocations;
  return __libc_calloc(n, size);
}
void* realloc(void* p, size_t n) {
  ++allocations;
  return __libc_realloc(p, n);
}
void* aligned_alloc(size_t alignment, size_t n) {
  ++allocations;
  return __libc_memalign(alignment, n);
}
}
#endif

namespace fastrnn::tests {
namespace {

template <class T>
void stream_equals_sequence(const Shape& shape, const Backend& backend, int threads) {
  Problem<T> p(shape);
  std::shared_ptr<const Network<T>> net = p.network(backend);
  net->run(p.sequence(1));
  const bool lstm = shape.config.cell == Cell::lstm;
  Stream<T> stream(net, shape.batch, threads);
  stream.write_state(p.h0.data(), lstm ? p.c0.data() : nullptr);
  const size_t in = size_t(shape.batch * shape.config.input), out = size_t(shape.batch * shape.config.width());
  std::vector<T> y(out);
  const long before = allocations.load();
  long same = 0;
  for (size_t t = 0; t < size_t(shape.steps); ++t) {
    stream.step(p.x.data() + t * in, y.data());
    same += std::memcmp(y.data(), p.y.data() + t * out, out * sizeof(T)) == 0;
  }
  const long taken = allocations.load() - before;
  CHECK(same == shape.steps, "%s on %s: %ld of %d steps", shape.name, backend.name, same, shape.steps);
  CHECK(taken == 0 || threads > 1, "%s on %s: %ld allocations", shape.name, backend.name, taken);
  std::vector<T> h(p.hn.size()), c(p.cn.size());
  stream.read_state(h.data(), lstm ? c.data() : nullptr);
  CHECK(hash_of(h) == hash_of(p.hn), "%s on %s: h", shape.name, backend.name);
  CHECK(!lstm || hash_of(c) == hash_of(p.cn), "%s on %s: c", shape.name, backend.name);
}

}  // namespace

long allocations_so_far() { return allocations.load(); }

void test_stream() {
#if defined(FASTRNN_COUNTS_ALLOCATIONS)
  const long before = allocations.load();
  void* volatile block = std::malloc(1);  // volatile: or the compiler takes the pair away
  std::free(block);
  CHECK(allocations.load() > before, "the count of allocations counts nothing");
#endif
  for (const Backend* backend : usable_backends()) {
    for (Shape shape : shapes()) {
      shape.ragged = false;
      shape.config.bidirectional = false;
      for (int threads = 1; threads <= 3; ++threads) {
        stream_equals_sequence<float>(shape, *backend, threads);
        stream_equals_sequence<double>(shape, *backend, threads);
      }
    }
  }
}

}  // namespace fastrnn::tests
