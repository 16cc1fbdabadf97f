// The promise of equal bits: threads, ISAs, and what is planned for
// other cores. (Batch mates, chunks and places are tested from Python.)
#include <algorithm>

#include "registry.h"
#include "tests/check.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

// Weights in the caches of one, and behind the second level of the other, which reads slowly and is planned for
// otherwise. One row takes its blocks one by one in the first, and in pairs in the other, whose first level is large.
constexpr Core kCached = {1 << 20, 100, 3.5, 0}, kBehind = {4096, 2, 3.5, 1 << 30};

constexpr double kChaotic = 3;  // so large that one wrong bit spreads over everything

const Shape& long_shape() {
  static const Shape shape = {"lstm_chaotic", {Cell::lstm, 2, 24, 1, true, false, 0}, 2000, 1, false, true};
  return shape;
}

// Rows enough that W x is hoisted, and units are split, for the second of the cores alone.
const Shape& many_rows() {
  static const Shape shape = {"lstm_many_rows", {Cell::lstm, 24, 72, 1, true, false, 0}, 30, 20, false};
  return shape;
}

// One row, of which a thread makes dx behind the one that sweeps, in two blocks of time.
const Shape& one_row() {
  static const Shape shape = {"gru_one_row", {Cell::gru, 24, 72, 1, true, false, 0}, 300, 1, false};
  return shape;
}

// Layers that are at work together: an odd number of blocks of time, the last of them short; rows of all lengths; a
// projection.
const std::vector<Shape>& stacks() {
  static const std::vector<Shape> all = {
      {"lstm_stack", {Cell::lstm, 24, 40, 3, true, false, 0}, 600, 1, false},
      {"lstm_stack_ragged", {Cell::lstm, 9, 64, 2, true, false, 0}, 150, 4, true},
      {"gru_stack", {Cell::gru, 20, 40, 2, true, false, 0}, 80, 1, false},
      {"lstm_stack_projected", {Cell::lstm, 17, 33, 3, false, false, 7}, 121, 1, false},
  };
  return all;
}

// Back, with one of these sizes on each ISA, the others keep to one thread and the first layer does not: what they need
// lies differently in the same memory.
const std::vector<Shape>& layers_apart() {
  static const Config config = {Cell::gru, 200, 16, 3, true, true, 0};
  static const std::vector<Shape> all = {{"gru_layers_apart_16", config, 16, 3, false},
                                         {"gru_layers_apart_8", config, 8, 3, false},
                                         {"gru_layers_apart_4", config, 4, 3, false},
                                         {"gru_layers_apart_2", config, 2, 3, false}};
  return all;
}

Plan plan_of(const Shape& shape, const Backend& backend, const Core& core, Use use) {
  const auto net = Problem<float>(shape).network(backend, &core);
  return net->plan(0, {shape.steps, shape.batch, int64_t(shape.steps) * shape.batch, 2, use});
}

void check_plans(const Shape& shape, const Backend& backend) {
  const Plan near = plan_of(shape, backend, kCached, Use::training);
  const Plan behind = plan_of(shape, backend, kBehind, Use::training);
  CHECK(!near.hoist && near.split == Split::rows, "%s on %s, near weights: hoist %d, split %d", shape.name,
        backend.name, int(near.hoist), int(near.split));
  CHECK(behind.hoist && behind.split == Split::units, "%s on %s, weights behind: hoist %d, split %d", shape.name,
        backend.name, int(behind.hoist), int(behind.split));
}

// Without a tape, by the crew.
template <class T>
uint64_t run_hash(const Shape& shape, const Backend& backend, int threads) {
  Problem<T> p(shape);
  p.network(backend)->run(p.sequence(threads));
  return hash_of(p.cn, hash_of(p.hn, hash_of(p.y)));
}

template <class T>
void check_stack(const Shape& shape, const Backend& backend) {
  const auto net = Problem<T>(shape).network(backend);
  for (const Use use : {Use::inference, Use::training, Use::backward}) {
    const std::vector<Plan> plans =
        net->plans({shape.steps, shape.batch, int64_t(shape.steps) * shape.batch, 2, use, 1});
    if (shape.batch > 1 && std::string(backend.name) != "avx512") continue;  // rows are shared out there
    for (const Plan& p : plans) {
      CHECK(p.split == Split::layers, "%s on %s, use %d: split %d", shape.name, backend.name, int(use), int(p.split));
    }
  }
  const uint64_t one = run_hash<T>(shape, backend, 1);
  for (const int threads : {2, 2, 2, 3, 4}) {
    CHECK(run_hash<T>(shape, backend, threads) == one, "%s on %s, %d threads", shape.name, backend.name, threads);
  }
}

template <class T>
void same_for_threads_and_isas(const Shape& shape, double gain) {
  uint64_t promised = 0;
  for (const Backend* backend : usable_backends()) {
    const uint64_t one = pass_hash<T>(shape, *backend, 1, gain);
    for (const int threads : kThreads) {
      CHECK(threads == 1 || pass_hash<T>(shape, *backend, threads, gain) == one, "%s on %s, %d threads", shape.name,
            backend->name, threads);
    }
    for (const Core& core : {kCached, kBehind}) {
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
  for (int cell = 0; cell < kCells; ++cell) {
    const bool found = std::any_of(shapes().begin(), shapes().end(),
                                   [&](const Shape& shape) { return shape.config.cell == Cell(cell); });
    CHECK(found, "no shape of problem.cpp is of the cell %s", kCellNames[cell]);
  }
  for (const Shape& shape : shapes()) {
    same_for_threads_and_isas<float>(shape, 0.5);
    same_for_threads_and_isas<double>(shape, 0.5);
  }
  same_for_threads_and_isas<float>(long_shape(), kChaotic);
  for (const Backend* backend : usable_backends()) check_plans(many_rows(), *backend);
  same_for_threads_and_isas<float>(many_rows(), 0.5);
  same_for_threads_and_isas<double>(many_rows(), 0.5);
  for (const Backend* backend : usable_backends()) {
    const Split split = plan_of(one_row(), *backend, kCached, Use::backward).split;
    CHECK(split == Split::pipeline, "%s on %s, back: split %d", one_row().name, backend->name, int(split));
  }
  same_for_threads_and_isas<float>(one_row(), 0.5);
  same_for_threads_and_isas<double>(one_row(), 0.5);
  for (const Backend* backend : usable_backends()) {
    bool differ = false;
    for (const Shape& shape : layers_apart()) {
      const auto net = Problem<float>(shape).network(*backend);
      const auto threads = [&](int layer) {
        return net->plan(layer, {shape.steps, shape.batch, shape.steps * shape.batch, 2, Use::backward}).threads;
      };
      differ = differ || threads(0) != threads(1);
    }
    CHECK(differ || std::string(backend->name) == "neon", "%s: no layers with different threads", backend->name);
  }
  for (const Shape& shape : layers_apart()) {
    same_for_threads_and_isas<float>(shape, 0.5);
    same_for_threads_and_isas<double>(shape, 0.5);
  }
  for (const Shape& shape : stacks()) {
    for (const Backend* backend : usable_backends()) check_stack<float>(shape, *backend);
    same_for_threads_and_isas<float>(shape, 0.5);
    same_for_threads_and_isas<double>(shape, 0.5);
  }
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
