// The promise of equal bits: threads, ISAs, and what is planned for other cores. (Batch mates, chunks and places are tested from Python.)
#include "registry.h"
#include "tests/check.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

// Weights in the caches of one, and behind those of the other, which reads slowly and is planned for otherwise.
constexpr Core kCores[] = {{1 << 20, 100, true}, {1 << 20, 100, false}, {4096, 10, true}};

constexpr double kChaotic = 3;  // so large that one wrong bit spreads over everything

const Shape& long_shape() {
  static const Shape shape = {"lstm_chaotic", {Cell::lstm, 2, 24, 1, true, false, 0}, 2000, 1, false, true};
  return shape;
}

template <class T>
void same_for_threads_and_isas(const Shape& shape, double gain) {
  uint64_t promised = 0;
  for (const Backend* backend : usable_backends()) {
    const uint64_t one = pass_hash<T>(shape, *backend, 1, gain);
    for (int threads = 2; threads <= 4; ++threads) {
      CHECK(pass_hash<T>(shape, *backend, threads, gain) == one, "%s on %s, %d threads", shape.name, backend->name,
            threads);
    }
    for (const Core& core : kCores) {
      for (int threads = 1; threads <= 2; ++threads) {
        CHECK(pass_hash<T>(shape, *backend, threads, gain, &core) == one, "%s on %s, %d threads, core of %.0f bytes",
              shape.name, backend->name, threads, core.l2_bytes);
      }
    }
    if (!backend->has_fma) continue;
    if (!promised) promised = one;
    CHECK(one == promised, "%s on %s", shape.name, backend->name);
  }
}

template <class T>
void print_case(const Shape& shape, double gain) {
  std::printf("%s_%s %016llx\n", shape.name, sizeof(T) == 4 ? "float32" : "float64",
              static_cast<unsigned long long>(pass_hash<T>(shape, current_backend(), 2, gain)));
}

}  // namespace

void test_bits() {
  for (const Shape& shape : shapes()) {
    same_for_threads_and_isas<float>(shape, 0.5);
    same_for_threads_and_isas<double>(shape, 0.5);
  }
  same_for_threads_and_isas<float>(long_shape(), kChaotic);
}

void print_bits() {
  for (const Shape& shape : shapes()) {
    print_case<float>(shape, 0.5);
    print_case<double>(shape, 0.5);
  }
  print_case<float>(long_shape(), kChaotic);
  print_case<double>(long_shape(), kChaotic);
}

}  // namespace fastrnn::tests
