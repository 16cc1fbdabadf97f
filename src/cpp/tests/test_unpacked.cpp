// A step by weights where they lie: the bits of packed ones.
#include "network/unpacked.h"

#include <cinttypes>

#include "tests/check.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

// Squares and what is left of them: one column, a whole vector and one, a multiple of 4 KB between rows (I 1024). Whole
// lines of units, and H of one more or one less. Few rows in several groups, whole and not, of matrices that are large
// enough. And more rows, of which weights are packed in one piece or in several, the last of them narrower, with a part
// of a block, or alone.
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
    {"rnn_groups_of_3", {Cell::rnn_tanh, 520, 603, 1, true, false, 0}, 1, 9, false},
    {"rnn_groups_of_4", {Cell::rnn_relu, 600, 520, 1, true, false, 0}, 1, 13, false},
    {"rnn_groups_of_2", {Cell::rnn_tanh, 1024, 512, 1, true, false, 0}, 1, 7, false},
    {"lstm_groups_of_1", {Cell::lstm, 257, 256, 1, true, true, 0}, 1, 3, false},
    {"gru_groups", {Cell::gru, 301, 304, 1, true, false, 0}, 1, 6, false},
    {"gru_one_piece", {Cell::gru, 5, 17, 2, true, true, 0}, 1, 5, false},
    {"rnn_pieces", {Cell::rnn_tanh, 300, 600, 1, false, false, 0}, 1, 11, false},
    {"lstm_pieces", {Cell::lstm, 259, 100, 2, true, true, 0}, 1, 37, false},
    {"lstm_pieces_20", {Cell::lstm, 1023, 20, 1, true, false, 0}, 1, 8, false},
    {"gru_pieces", {Cell::gru, 256, 264, 1, true, false, 0}, 1, kMostUnpackedRows, false},
};

template <class T>
uint64_t results(const Problem<T>& p) {
  return hash_of(p.cn, hash_of(p.hn, hash_of(p.y)));
}

template <class T>
void test_shape(const Shape& shape, const Backend& backend) {
  Problem<T> packed(shape);
  packed.network(backend)->run(packed.sequence(1));
  for (const int threads : kThreads) {
    Problem<T> p(shape);
    const Sequence<T> call = p.sequence(threads);
    CHECK(suits_unpacked(shape.config, call), "%s", shape.name);
    BlockPool pool;
    run_unpacked(shape.config, backend, p.weight_pointers.data(), call, pool);
    CHECK(results(p) == results(packed), "%s %s %d threads: %" PRIx64 " and %" PRIx64, shape.name, backend.name,
          threads, results(p), results(packed));
  }
}

// Both passes, by weights that were taken or packed, and back by rows of them or by their transposes.
template <class T>
void test_training(const Shape& shape, const Backend& backend) {
  uint64_t expected = 0;
  for (const int threads : kThreads) {
    for (const bool taken : {false, true}) {
      for (const bool transposed : {true, false}) {
        Problem<T> p(shape);
        const auto net = p.network(backend);
        if (taken) net->take(p.weight_pointers.data());
        const auto tape = net->forward(p.sequence(threads));
        if (transposed) net->pack_backward(threads);
        net->backward(*tape, p.gradients(threads));
        const uint64_t found = results_hash(p);
        if (!expected) expected = found;
        CHECK(found == expected, "%s %s, %d threads, taken %d, transposed %d: %" PRIx64 " and %" PRIx64, shape.name,
              backend.name, threads, taken, transposed, found, expected);
      }
    }
  }
}

// The results of a network whose weights are all doubled after `before(network)`.
template <class Before, class Pass>
uint64_t doubled_after(const Shape& shape, Before before, Pass pass) {
  Problem<float> p(shape);
  const auto net = p.network(current_backend());
  net->take(p.weight_pointers.data());
  before(*net, p);
  for (auto& w : p.weights) {
    for (float& value : w) value *= 2;
  }
  pass(*net, p);
  return results_hash(p);
}

// A step reads weights that were taken when it needs them, and so does what packs them first.
void test_what_is_read_when() {
  Shape step = kShapes[2], sequence = step;
  step.batch = 1, sequence.steps = 5;
  const auto nothing = [](const Network<float>&, Problem<float>&) {};
  const auto run = [](const Network<float>& net, Problem<float>& p) { net.run(p.sequence(1)); };
  const auto pack = [](const Network<float>& net, Problem<float>&) { net.pack_forward(1); };
  const auto back = [](const Network<float>& net, Problem<float>& p) {
    net.backward(*net.forward(p.sequence(1)), p.gradients(1));
  };
  const auto repack = [&](Network<float>& net, Problem<float>& p) { net.pack(p.weight_pointers.data()), run(net, p); };
  const uint64_t doubled = doubled_after(step, nothing, repack), whole = doubled_after(sequence, nothing, repack);
  CHECK(doubled_after(step, nothing, run) == doubled, "a step of taken weights");
  CHECK(doubled_after(step, run, run) == doubled, "the second step");
  CHECK(doubled_after(step, pack, run) != doubled, "a step of packed ones");
  CHECK(doubled_after(step, pack, repack) == doubled, "packed anew");
  CHECK(doubled_after(sequence, nothing, run) == whole, "a sequence packs what was taken");
  CHECK(doubled_after(sequence, run, run) != whole, "and does so once");
  const auto transposes = [](const Network<float>& net, Problem<float>&) { net.pack_forward(1), net.pack_backward(1); };
  const uint64_t read = doubled_after(step, pack, back);
  CHECK(doubled_after(step, transposes, back) != read, "a pass back by transposes of before");
  Shape many = step;
  many.batch = 9;
  const auto packed_back = [&](const Network<float>& net, Problem<float>& p) { pack(net, p), back(net, p); };
  CHECK(doubled_after(step, packed_back, back) == read, "few rows back read them each time");
  CHECK(doubled_after(many, packed_back, back) == doubled_after(many, transposes, back), "more pack them");
}

// Whatever was taken before, pack takes the weights that it is given.
void test_pack_after_taking_others() {
  Problem<float> taken(kShapes[2]), other(kShapes[2], 0.25);
  other.network(current_backend())->run(other.sequence(1));
  const uint64_t expected = results(other);
  const auto net = taken.network(current_backend());
  net->take(taken.weight_pointers.data());
  net->pack(other.weight_pointers.data());
  net->run(other.sequence(1));
  CHECK(results(other) == expected, "%" PRIx64 " and %" PRIx64, results(other), expected);
}

// A row that has no step, on a tape whose call has lost its lengths (as the border of C drops them).
void test_a_row_without_a_step() {
  Shape shape = kShapes[1];
  shape.batch = 2, shape.ragged = true;
  uint64_t expected = 0;
  for (const bool transposed : {true, false}) {
    Problem<float> p(shape);
    p.lengths = {0, 1};
    const auto net = p.network(current_backend());
    if (transposed) net->pack_backward(1);
    const auto tape = net->forward(p.sequence(1));
    tape->call.lengths = nullptr;
    net->backward(*tape, p.gradients(1));
    if (transposed) expected = results_hash(p);
    CHECK(results_hash(p) == expected, "%" PRIx64 " and %" PRIx64, results_hash(p), expected);
  }
}

template <class Change>
void refused(Change change) {
  Shape shape = kShapes[2];
  shape.batch = 1;
  Problem<float> p(shape);
  Sequence<float> call = p.sequence(1);
  CHECK(suits_unpacked(shape.config, call), "before");
  change(shape.config, call);
  CHECK(!suits_unpacked(shape.config, call), "after");
}

}  // namespace

void test_unpacked() {
  for (const Backend* backend : usable_backends()) {
    for (const Shape& shape : kShapes) {
      test_shape<float>(shape, *backend), test_shape<double>(shape, *backend);
      test_training<float>(shape, *backend), test_training<double>(shape, *backend);
    }
  }
  test_what_is_read_when();
  test_pack_after_taking_others();
  test_a_row_without_a_step();
  refused([](Config&, Sequence<float>& call) { call.steps = 2; });
  refused([](Config&, Sequence<float>& call) { call.steps = 0; });
  refused([](Config&, Sequence<float>& call) { call.batch = kMostUnpackedRows + 1; });
  refused([](Config&, Sequence<float>& call) { call.batch = 0; });
  refused([](Config&, Sequence<float>& call) { call.dropout = 0.5; });
  const int64_t length = 1;
  refused([&](Config&, Sequence<float>& call) { call.lengths = &length; });
  refused([](Config& config, Sequence<float>&) { config.hidden = 15; });
  refused([](Config& config, Sequence<float>&) { config.projection = 4; });
}

}  // namespace fastrnn::tests
