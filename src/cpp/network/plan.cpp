#include "network/plan.h"

#include <algorithm>

namespace fastrnn {
namespace {

// Rough figures of a core of 2023-2025, in GFLOP/s and GB/s (bytes per ns). Only their ratios matter here: they decide
// between splits that differ by factors, and the break-even points were checked by timing each split (docs).
constexpr double kCoreGhz = 3.5, kL1 = 250, kL2 = 110, kL3 = 45, kMemory = 15;
constexpr double kL1Bytes = 32e3, kL2Bytes = 1.1e6, kL3Bytes = 16e6;
constexpr double kBarrier = 125;        // ns for each core that meets: 250 measured with two
constexpr double kStepOverhead = 20;    // ns
constexpr double kWorthAThread = 15e3;  // ns: entering a parallel region costs 1 to 5 us

double bandwidth(double bytes) {
  return bytes <= kL1Bytes ? kL1 : bytes <= kL2Bytes ? kL2 : bytes <= kL3Bytes ? kL3 : kMemory;
}

double core_gflops(int lanes) { return 4.0 * lanes * kCoreGhz; }  // two FMA units

// With few rows a tile reads each weight for little work: W x of many steps is one product then.
bool hoists(double rows) { return rows < 8; }

// One step of `rows` rows over `part` of the units.
double step_time(const LayerShape& s, double rows, double part) {
  const double units = s.hidden * part, outputs = s.gates * units;
  const double hoisted = hoists(rows) ? s.input : 0, depth = s.output + s.input - hoisted;
  const double weights = outputs * depth * s.element_bytes, peak = core_gflops(s.lanes);
  const double cell = rows * units * 5 * 8 / s.lanes / kCoreGhz;
  return kStepOverhead + cell + 2 * rows * outputs * hoisted / peak +
         std::max(2 * rows * outputs * depth / peak, weights / bandwidth(weights));
}

}  // namespace

LayerShape layer_shape(const Config& c, int layer, int gates, int lanes, int element_bytes) {
  return {gates, c.input_of(layer), c.hidden, c.output(), c.directions(), element_bytes, lanes, c.projection > 0};
}

int threads_for(double flops, int lanes, int threads) {
  return flops / core_gflops(lanes) < kWorthAThread ? 1 : threads;
}

Plan plan_layer(const LayerShape& s, int64_t steps, int batch, int64_t rows, int threads) {
  Plan plan = {1, 1, Split::none, false, 0, {}, 0, 0};
  if (steps == 0 || batch == 0) return plan;
  const double live = double(rows) / double(steps);
  const double depth = s.output + s.input;
  const int barriers = s.projects ? 2 : 1;
  const auto times = [&](int n, double (&ns)[3]) {
    ns[0] = step_time(s, live, 1);
    ns[1] = step_time(s, std::max(1.0, live / n), 1);
    ns[2] = step_time(s, live, 1.0 / n) + barriers * n * kBarrier;
    if (batch < n) ns[1] = ns[0];
    if (s.hidden < 2 * s.lanes) ns[2] = ns[0] + n * kBarrier;
  };
  times(threads, plan.step_ns);
  for (double& ns : plan.step_ns) ns *= s.directions;
  const double serial = plan.step_ns[0];
  double best = serial;
  const int most = serial * double(steps) >= kWorthAThread ? threads : 1;
  for (int n = most; n > 1; n /= 2) {  // fewer, where the barrier of all would cost more than they save
    double ns[3];
    times(n, ns);
    for (int i = 1; i < 3; ++i) {
      if (ns[i] * s.directions >= 0.9 * best) continue;
      best = ns[i] * s.directions;
      plan.threads = n, plan.split = Split(i);
    }
  }
  // Each direction on its own threads: no barrier between them, and more rows for each. The model sees too little of that:
  // LSTM H256 B8, two layers, trains in 142 ms so, and in 171 where it prefers four rows a thread.
  if (most > 1 && s.directions == 2) {
    double ns[3];
    times(threads / 2, ns);
    const int split = threads < 4 ? 0 : ns[1] <= ns[2] ? 1 : 2;
    if (ns[split] <= 1.3 * best) {
      best = ns[split];
      plan.threads = threads / 2 * 2, plan.teams = 2, plan.split = Split(split);
    }
  }
  plan.planned_ns = best;
  const double matrix = double(s.gates) * s.hidden * s.directions,
               read = matrix * s.output * s.element_bytes / plan.threads;
  plan.floor_ns = std::max(2 * live * matrix * depth / (core_gflops(s.lanes) * plan.threads), read / bandwidth(read));
  const int team = std::max(1, plan.threads / plan.teams);
  const double rows_per_thread = plan.split == Split::rows ? live / team : live;
  plan.hoist = steps > 1 && hoists(rows_per_thread);
  const double row_bytes = double(s.gates) * s.hidden * s.element_bytes;
  plan.chunk = std::clamp<int64_t>(int64_t(256e3 / (row_bytes * batch)), std::min<int64_t>(steps, 6), steps);
  return plan;
}

}  // namespace fastrnn
