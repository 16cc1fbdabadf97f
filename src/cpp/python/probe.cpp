// What this machine can do, and what its clock costs: measured for the benchmarks and `python -m fastrnn latency`.
#include <pybind11/numpy.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <vector>

#include "python/bind.h"
#include "python/unlocked.h"
#include "registry.h"
#include "system/clock.h"
#include "system/memory.h"
#include "threads/threads.h"

namespace fastrnn {

namespace py = pybind11;

namespace {

// The most that a run of five did in a nanosecond; body() says how much it has done.
template <class Body>
double best_rate(Body body) {
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const int64_t start = nanoseconds();
    const double done = body();
    best = std::max(best, done / double(nanoseconds() - start));
  }
  return best;
}

double fma_gflops(const Backend& b, int threads) {
  constexpr int64_t n = 2000000;
  return best_rate([&] {
    double flops = 0;
    parallel(threads, [&](const Team& team) {
      const double done = b.fma_loop(n);
      if (team.rank == 0) flops = done * team.size;
    });
    return flops;
  });
}

// From blocks that lie as weights do: vectors that straddle two cache lines are read at half the speed (Emerald Rapids,
// first level: 151 GB/s instead of 320).
double read_gbs(const Backend& b, size_t bytes, int threads) {
  const size_t n = bytes / sizeof(float), repeat = std::max<size_t>(1, (size_t(1) << 25) / bytes);
  std::vector<Block> blocks;
  for (int i = 0; i < threads; ++i) {
    blocks.emplace_back(bytes);
    std::fill_n(reinterpret_cast<float*>(blocks.back().data()), n, 1.0f);
  }
  std::atomic<float> sink{0};
  return best_rate([&] {
    double read = 0;
    parallel(threads, [&](const Team& team) {
      const char* const data = blocks[size_t(team.rank)].data();
      sink.store(b.read_loop(reinterpret_cast<const float*>(data), n, repeat));
      if (team.rank == 0) read = double(repeat * bytes) * team.size;
    });
    return read;
  });
}

// What this machine can do, measured now: the best of five short runs each.
py::dict probe() {
  const Backend& b = current_backend();
  const int all = available_threads();
  const auto measured = [&]() -> std::array<double, 6> {
    const Unlocked unlocked;
    return {fma_gflops(b, 1),          fma_gflops(b, all),      read_gbs(b, 16 << 10, 1),
            read_gbs(b, 512 << 10, 1), read_gbs(b, 6 << 20, 1), read_gbs(b, (6 << 20), all)};
  }();
  const char* const names[] = {"fma_gflops", "fma_gflops_all", "l1_gbs", "l2_gbs", "l3_gbs", "l3_gbs_all"};
  py::dict d;
  for (size_t i = 0; i < measured.size(); ++i) d[names[i]] = measured[i];
  return d;
}

// GFLOP/s of all cores together, the best of five runs of some milliseconds.
double peak() {
  const Backend& b = current_backend();
  const Unlocked unlocked;
  return fma_gflops(b, available_threads());
}

// Nanoseconds between `count` pairs of readings of the clock that Stream._step_times uses: what it adds to each.
py::array_t<int64_t> clock_times(int64_t count) {
  py::array_t<int64_t> times(count);
  int64_t* const to = times.mutable_data();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t start = nanoseconds();
    to[i] = nanoseconds() - start;
  }
  return times;
}

}  // namespace

void bind_probe(py::module_& m) {
  m.def("probe", &probe);
  m.def("peak", &peak);
  m.def("clock_times", &clock_times);
}

}  // namespace fastrnn
