#include "network/core.h"

#include <algorithm>
#include <new>

#include "network/memory.h"
#include "network/once.h"
#include "network/threads.h"

namespace fastrnn {
namespace {

// Twice what the second-level cache holds, walked in one direction: whatever it keeps is gone before it is read again.
double reading_gbs(const Backend& backend, double l2_bytes) {
  const size_t bytes = 2 * size_t(l2_bytes), n = bytes / sizeof(float);
  const Block block(bytes);
  float* const data = reinterpret_cast<float*>(block.data());
  std::fill_n(data, n, 1.0f);
  [[maybe_unused]] volatile float sink = 0;  // or the loop would be none
  int64_t least = INT64_MAX;
  for (int i = 0; i < 4; ++i) {  // others on the machine can only make it longer
    const int64_t start = nanoseconds();
    sink = backend.read_loop(data, n, 1);
    least = std::min(least, nanoseconds() - start);
  }
  return double(bytes) / double(std::max<int64_t>(least, 1));
}

}  // namespace

Core Core::usual() { return {second_level_bytes(), 45}; }

Core Core::measured(const Backend& backend) {
  static Once<double> gbs;
  Core core = usual();
  try {
    core.l3_gbs = gbs.get([&] { return reading_gbs(backend, core.l2_bytes); });
  } catch (const std::bad_alloc&) {  // a layer can do without
  }
  return core;
}

}  // namespace fastrnn
