#include "plan/core.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "registry.h"
#include "system/clock.h"
#include "system/memory.h"
#include "system/once.h"

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace fastrnn {
namespace {

// Bytes of a core's caches; 32 KiB of data and 1 MiB where the system does not tell.
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
// On some machines it reads files.
long cache_bytes(Once<long>& known, int name, long usual) {
  return known.get([&] {
    const long found = sysconf(name);
    return found > 0 ? found : usual;
  });
}

int first_level_bytes() {
  static Once<long> bytes;
  return int(cache_bytes(bytes, _SC_LEVEL1_DCACHE_SIZE, 1 << 15));
}

double second_level_bytes() {
  static Once<long> bytes;
  return double(cache_bytes(bytes, _SC_LEVEL2_CACHE_SIZE, 1 << 20));
}
#else
int first_level_bytes() { return 1 << 15; }
double second_level_bytes() { return 1 << 20; }
#endif

// ns of the fastest of so many runs: others on the machine can only make them longer.
template <class Work>
double fastest_ns(int runs, Work work) {
  int64_t least = INT64_MAX;
  for (; runs > 0; --runs) {
    const int64_t start = nanoseconds();
    work();
    least = std::min(least, nanoseconds() - start);
  }
  return double(std::max<int64_t>(least, 1));
}

// Twice what the second-level cache holds, walked in one direction: whatever it keeps is gone before it is read again.
double reading_gbs(const Backend& backend, double l2_bytes) {
  const size_t bytes = 2 * size_t(l2_bytes), n = bytes / sizeof(float);
  const Block block(bytes);
  float* const data = reinterpret_cast<float*>(block.data());
  std::fill_n(data, n, 1.0f);
  [[maybe_unused]] volatile float sink = 0;  // or the loop would be none
  return double(bytes) / fastest_ns(4, [&] { sink = backend.read_loop(data, n, 1); });
}

double fmas_a_ns(const Backend& backend) {
  double flops = 0;
  const double ns = fastest_ns(50, [&] { flops = backend.fma_loop(2000); });  // 0.2 ms: longer than others take a core
  return flops / (2.0 * backend.f32.lanes * ns);
}

// What was measured with a backend: one of narrow vectors reads less in a ns than one of wide ones.
struct Figures {
  std::atomic<const Backend*> backend{nullptr};
  Once<double> gbs, fmas;
};

// No map behind a lock, which might be held when a child is forked: see Once.
Figures figures[kMostBackends];

Figures& figures_of(const Backend& backend) {
  for (Figures& f : figures) {
    const Backend* known = f.backend.load(std::memory_order_relaxed);
    if (!known) f.backend.compare_exchange_strong(known, &backend);  // known becomes what another thread has put there
    if (!known || known == &backend) return f;
  }
  return figures[kMostBackends - 1];  // never: each backend has a place
}

}  // namespace

Core Core::usual() { return {second_level_bytes(), 45, 3.5, first_level_bytes()}; }

Core Core::measured(const Backend& backend) {
  Figures& known = figures_of(backend);
  Core core = usual();
  try {
    core.l3_gbs = known.gbs.get([&] { return reading_gbs(backend, core.l2_bytes); });
    core.fmas = known.fmas.get([&] { return fmas_a_ns(backend); });
  } catch (const std::bad_alloc&) {  // a layer can do without
  }
  return core;
}

}  // namespace fastrnn
