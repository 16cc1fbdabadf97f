// A step by weights where they lie: the bits of packed ones.
#include "network/unpacked.h"

#include <cinttypes>

#include "tests/check.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

// Squares and what is left of them: one column, a whole vector and one, a multiple of 4 KB between rows (I 1024). Whole
// lines of units, and H of one more or one less.
const Shape kShapes[] = {
    {"rnn_tanh", {Cell::rnn_tanh, 1, 16, 1, true, false, 0}, 1, 1, false},
    {"rnn_relu", {Cell::rnn_relu, 37, 48, 2, false, true, 0}, 1, 4, false},
    {"lstm", {Cell::lstm, 17, 32, 3, true, true, 0}, 1, 3, false},
    {"lstm_power_of_two", {Cell::lstm, 1024, 16, 1, true, false, 0}, 1, 2, false},
    {"lstm_power_of_two_one_row", {Cell::lstm, 1024, 16, 1, true, false, 0}, 1, 1, false},
    {"gru_power_of_two_four_rows", {Cell::gru, 1024, 16, 1, true, false, 0}, 1, 4, false},
    {"lstm_threads", {Cell::lstm, 200, 144, 1, true, false, 0}, 1, 1, false},
    {"lstm_17", {Cell::lstm, 3, 17, 2, true, true, 0}, 1, 3, false},
    {"lstm_threads_100", {Cell::lstm, 700, 100, 1, true, false, 0}, 1, 2, false},
    {"gru_47", {Cell::gru, 9, 47, 1, true, false, 0}, 1, 4, false},
    {"gru", {Cell::gru, 31, 64, 2, true, false, 0}, 1, 1, false},
    {"gru_threads", {Cell::gru, 24, 208, 1, true, true, 0}, 1, 2, false},
};

template <class T>
uint64_t results(const Problem<T>& p) {
  return hash_of(p.cn, hash_of(p.hn, hash_of(p.y)));
}

template <class T>
void test_shape(const Shape& shape, const Backend& backend) {
  Problem<T> packed(shape);
  packed.network(backend)->run(packed.sequence(1));
  for (const int threads : {1, 2, 3}) {
    Problem<T> p(shape);
    const Sequence<T> call = p.sequence(threads);
    const bool few = shape.batch <= kernels_of<T>(backend).unpacked_rows;
    CHECK(suits_unpacked(shape.config, backend, call) == few, "%s %s", shape.name, backend.name);
    if (!few) continue;
    run_unpacked(shape.config, backend, p.weight_pointers.data(), call);
    CHECK(results(p) == results(packed), "%s %s %d threads: %" PRIx64 " and %" PRIx64, shape.name, backend.name,
          threads, results(p), results(packed));
  }
}

template <class Change>
void refused(Change change) {
  Shape shape = kShapes[2];
  shape.batch = 1;
  Problem<float> p(shape);
  Sequence<float> call = p.sequence(1);
  CHECK(suits_unpacked(shape.config, current_backend(), call), "before");
  change(shape.config, call);
  CHECK(!suits_unpacked(shape.config, current_backend(), call), "after");
}

}  // namespace

void test_unpacked() {
  for (const Backend* backend : usable_backends()) {
    for (const Shape& shape : kShapes) test_shape<float>(shape, *backend), test_shape<double>(shape, *backend);
  }
  refused([](Config&, Sequence<float>& call) { call.steps = 2; });
  refused([](Config&, Sequence<float>& call) { call.steps = 0; });
  refused([](Config&, Sequence<float>& call) { call.batch = kMostUnpackedRows + 1; });
  refused([](Config&, Sequence<float>& call) { call.batch = 0; });
  refused([](Config&, Sequence<float>& call) { call.dropout = 0.5; });
  refused([](Config& config, Sequence<float>&) { config.hidden = 15; });
  refused([](Config& config, Sequence<float>&) { config.projection = 4; });
}

}  // namespace fastrnn::tests
