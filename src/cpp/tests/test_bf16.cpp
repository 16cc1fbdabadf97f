// Weights that are bfloat16: what one row computes by half their bytes has the bits of several rows, which read floats.
#include <algorithm>
#include <cstring>
#include <utility>

#include "stream.h"
#include "tests/check.h"
#include "tests/interpose.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

// Depths that are odd and even, with W x ahead of time and without; whole blocks, and parts of a block behind them.
const Shape kRounded[] = {
    {"rnn_tanh", {Cell::rnn_tanh, 5, 129, 1, true, false, 0}, 7, 3, false},
    {"rnn_relu", {Cell::rnn_relu, 131, 128, 2, false, true, 0}, 6, 2, false},
    {"lstm", {Cell::lstm, 1, 67, 2, true, true, 0}, 9, 3, false},
    {"lstm_65", {Cell::lstm, 64, 65, 1, true, false, 0}, 5, 2, false},
    {"lstm_projected", {Cell::lstm, 40, 120, 2, true, false, 33}, 6, 3, false},
    {"lstm_one_step", {Cell::lstm, 33, 100, 1, true, false, 0}, 1, 2, false},
    {"gru", {Cell::gru, 63, 72, 2, true, true, 0}, 8, 3, false},
    {"gru_160", {Cell::gru, 2, 160, 1, true, false, 0}, 12, 2, false},
};

void keep_upper_half(float& value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits &= 0xffff0000u;
  std::memcpy(&value, &bits, sizeof bits);
}

// W, U and W_hr, not the biases, sweep after sweep.
std::vector<std::vector<float>*> matrices(Problem<float>& p) {
  const Config& c = p.shape.config;
  std::vector<std::vector<float>*> found;
  size_t i = 0;
  for (int sweep = 0; sweep < c.sweeps(); ++sweep) {
    each_weight_of(c, p.cell().gates, sweep, [&](Weight, int64_t, int64_t columns) {
      if (columns) found.push_back(&p.weights[i]);
      ++i;
    });
  }
  return found;
}

Problem<float> rounded(const Shape& shape) {
  Problem<float> p(shape);
  for (std::vector<float>* w : matrices(p)) std::for_each(w->begin(), w->end(), keep_upper_half);
  return p;
}

bool halved(const Network<float>& net, int sweep) {
  const Bf16Weights found = net.forward_task(sweep).bf16;
  return found.w && found.u && bool(found.projection) == (net.config().projection > 0);
}

// y and dx of all rows at once, or of each by itself.
void pass(Problem<float>& p, const Network<float>& net, int threads, int at_once) {
  const Config& c = p.shape.config;
  for (int row = 0; row < p.shape.batch; row += at_once) {
    Sequence<float> call = p.sequence(threads);
    Gradients<float> gradients = p.gradients(threads);
    call.batch = at_once;
    call.h0 = call.c0 = nullptr, gradients.dh = gradients.dc = nullptr;
    call.x.data += row * c.input, call.y.data += row * c.width();
    gradients.dx.data += row * c.input, gradients.dy.data += row * c.width();
    net.backward(*net.forward(call), gradients);
  }
}

void rows_alone_equal_rows_together(const Shape& shape, const Backend& backend) {
  Problem<float> together = rounded(shape);
  const auto net = together.network(backend);
  for (int sweep = 0; sweep < shape.config.sweeps(); ++sweep) {
    CHECK(halved(*net, sweep), "%s on %s: sweep %d is read whole", shape.name, backend.name, sweep);
  }
  pass(together, *net, 1, shape.batch);
  for (const int threads : {1, 2, 3}) {
    Problem<float> alone = rounded(shape);
    const auto packed_by_more = std::make_unique<Network<float>>(shape.config, backend);
    packed_by_more->pack(alone.weight_pointers.data(), threads);
    pass(alone, *packed_by_more, threads, 1);
    CHECK(hash_of(alone.y) == hash_of(together.y), "%s on %s, %d threads: y", shape.name, backend.name, threads);
    CHECK(hash_of(alone.dx) == hash_of(together.dx), "%s on %s, %d threads: dx", shape.name, backend.name, threads);
  }
}

// Each thread may have one row, which is not the first.
void rows_of_threads(const Backend& backend) {
  for (const Shape& shape : {Shape{"projected", {Cell::lstm, 40, 120, 1, true, false, 33}, 40, 3, false},
                             Shape{"gru", {Cell::gru, 63, 72, 1, true, false, 0}, 60, 3, false}}) {
    Problem<float> alone = rounded(shape), shared = rounded(shape);
    const auto net = alone.network(backend);
    pass(alone, *net, 1, 1);
    pass(shared, *net, 3, 3);
    CHECK(hash_of(alone.y) == hash_of(shared.y), "%s on %s: a row for each thread", shape.name, backend.name);
  }
}

// The pairs of matrix m of the first sweep, as `matrices` counts.
std::pair<uint32_t*, size_t> pairs(const Network<float>& net, int m) {
  const Config& c = net.config();
  const Bf16Weights found = net.forward_task(0).bf16;
  const size_t units = size_t(net.cell().gates) * whole_vectors(net.kernels(), c.hidden);
  const uint32_t* const at[] = {found.w, found.u, found.projection};
  const size_t size[] = {units * size_t(pairs_of(c.input)), units * size_t(pairs_of(c.output())),
                         whole_vectors(net.kernels(), c.projection) * size_t(pairs_of(c.hidden))};
  return {const_cast<uint32_t*>(at[m]), size[m]};
}

// One row reads the pairs, of every matrix and to its end, and several rows do not: with zeros there the weights are
// zeros to one row.
void one_row_reads_pairs(Shape shape, const Backend& backend) {
  const Core core = {1 << 20, 50, 3.5};
  for (int m = 0; m < (shape.config.projection ? 3 : 2); ++m) {
    shape.steps = m ? 3 : 1;  // of several steps W x is a product of many rows, and at the first U meets h = 0
    Problem<float> p = rounded(shape), zeros = rounded(shape);
    std::fill(matrices(zeros)[size_t(m)]->begin(), matrices(zeros)[size_t(m)]->end(), 0.0f);
    const auto net = p.network(backend, &core);
    pass(p, *net, 1, shape.batch);
    pass(zeros, *zeros.network(backend, &core), 1, shape.batch);
    const uint64_t whole = hash_of(p.y);
    const auto [data, size] = pairs(*net, m);
    std::fill_n(data, size, 0u);
    pass(p, *net, 1, 1);
    CHECK(hash_of(p.y) == hash_of(zeros.y), "%s on %s: matrix %d is read elsewhere", shape.name, backend.name, m);
    pass(p, *net, 1, shape.batch);
    CHECK(hash_of(p.y) == whole, "%s on %s: several rows read matrix %d", shape.name, backend.name, m);
  }
}

void streams_equal_rows_together(const Shape& shape, const Backend& backend) {
  Problem<float> p = rounded(shape);
  std::shared_ptr<const Network<float>> net = p.network(backend);
  pass(p, *net, 1, shape.batch);
  const int in = shape.config.input, out = shape.config.width();
  for (const int threads : {1, 2}) {
    Stream<float> stream(net, 1, threads);
    std::vector<float> y(static_cast<size_t>(out));
    int same = 0;
    for (int t = 0; t < shape.steps; ++t) {
      stream.step(p.x.data() + t * shape.batch * in, y.data());
      same += std::equal(y.begin(), y.end(), p.y.begin() + t * shape.batch * out);
    }
    CHECK(same == shape.steps, "%s on %s, %d threads: %d of %d steps", shape.name, backend.name, threads, same,
          shape.steps);
  }
}

// One weight that is none, anywhere in a sweep, and all of the sweep is read whole; others are not.
void found_in_each_matrix(const Shape& shape, const Backend& backend) {
  Problem<float> p = rounded(shape);
  const auto net = p.network(backend);
  const std::vector<std::vector<float>*> all = matrices(p);
  const int sweeps = shape.config.sweeps(), each = int(all.size()) / sweeps;
  for (size_t m = 0; m < all.size(); ++m) {
    for (float* at : {&all[m]->front(), &all[m]->back()}) {
      const float before = *at;
      *at = 1 + 0x1p-23f;
      net->pack(p.weight_pointers.data());
      for (int sweep = 0; sweep < sweeps; ++sweep) {
        CHECK(halved(*net, sweep) == (sweep != int(m) / each), "%s on %s: matrix %zu, sweep %d", shape.name,
              backend.name, m, sweep);
      }
      *at = before;
    }
    net->pack(p.weight_pointers.data());
    CHECK(halved(*net, int(m) / each), "%s on %s: matrix %zu, packed again", shape.name, backend.name, m);
  }
}

// Weights that the first-level cache holds stay whole, and so do those of float64.
void not_worth_it(const Backend& backend) {
  const Shape small = {"lstm_32", {Cell::lstm, 8, 32, 1, true, false, 0}, 3, 1, false};
  Problem<float> p = rounded(small);
  CHECK(!halved(*p.network(backend), 0), "%s: small weights are taken apart", backend.name);
  Problem<double> doubles(kRounded[3]);
  for (auto& w : doubles.weights) std::fill(w.begin(), w.end(), 0.5);
  const auto net = doubles.network(backend);
  CHECK(!net->forward_task(0).bf16.u, "%s: float64 is taken apart", backend.name);
}

// Where there is no memory for pairs, floats are read; with the next weights, pairs again.
void without_memory(const Backend& backend) {
  if (!interposes()) return;
  const Shape& shape = kRounded[4];
  Problem<float> p = rounded(shape), alone = rounded(shape);
  pass(p, *p.network(backend), 1, shape.batch);
  const auto net = Problem<float>(shape).network(backend);
  fail_allocations(0);
  net->pack(alone.weight_pointers.data());
  const bool wanted = allocation_failed();
  fail_allocations(-1);
  CHECK(wanted && !halved(*net, 0), "%s: pairs without memory", backend.name);
  pass(alone, *net, 1, 1);
  CHECK(hash_of(alone.y) == hash_of(p.y), "%s: other bits without memory", backend.name);
  net->pack(alone.weight_pointers.data());
  CHECK(halved(*net, 0), "%s: no pairs with memory", backend.name);
}

// Where weights do not lie near, a step of one row is planned by half their bytes. (Narrow vectors multiply for longer
// than they read.)
void planned_by_what_is_read(const Backend& backend) {
  const Shape shape = {"lstm_256", {Cell::lstm, 256, 256, 1, true, false, 0}, 1, 1, false};
  const Core core = {1 << 20, 24, 3.5};
  const auto whole = Problem<float>(shape).network(backend, &core), half = rounded(shape).network(backend, &core);
  const auto floor = [](const Network<float>& net, int batch, Use use) {
    return net.plan(0, {100, batch, 100 * batch, 1, use}).floor_ns;
  };
  const bool wide = backend.f32.lanes == 16;
  CHECK(!wide || floor(*half, 1, Use::inference) < 0.75 * floor(*whole, 1, Use::inference), "%s", backend.name);
  const auto planned = [](const Network<float>& net) { return net.plan(0, {1, 1, 1, 1, Use::inference}).planned_ns; };
  CHECK(!wide || planned(*half) < 0.95 * planned(*whole), "%s: planned", backend.name);
  CHECK(floor(*half, 2, Use::inference) == floor(*whole, 2, Use::inference), "%s: two rows", backend.name);
  CHECK(floor(*half, 1, Use::backward) == floor(*whole, 1, Use::backward), "%s: backward", backend.name);
}

}  // namespace

void test_bf16() {
  for (const Backend* backend : usable_backends()) {
    for (Shape shape : kRounded) {
      rows_alone_equal_rows_together(shape, *backend);
      one_row_reads_pairs(shape, *backend);
      if (!shape.config.bidirectional) streams_equal_rows_together(shape, *backend);
    }
    found_in_each_matrix(kRounded[2], *backend);
    found_in_each_matrix(kRounded[4], *backend);  // with a projection
    rows_of_threads(*backend);
    not_worth_it(*backend);
    without_memory(*backend);
    planned_by_what_is_read(*backend);
  }
}

}  // namespace fastrnn::tests
