// A stream gives the bits of the sequence, and a step takes no memory.
#include "stream.h"

#include <cstring>
#include <type_traits>

#include "tests/check.h"
#include "tests/interpose.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

static_assert(!std::is_move_constructible_v<Stream<float>> && !std::is_move_assignable_v<Stream<float>>,
              "the tasks of a stream point into it");

template <class T>
void stream_equals_sequence(const Shape& shape, const Backend& backend, int threads) {
  Problem<T> p(shape);
  std::shared_ptr<const Network<T>> net = p.network(backend);
  net->run(p.sequence(1));
  const bool has_c = p.cell().has_cell_state;
  Stream<T> stream(net, shape.batch, threads);
  stream.write_state(p.h0.data(), has_c ? p.c0.data() : nullptr);
  const size_t in = size_t(shape.batch * shape.config.input), out = size_t(shape.batch * shape.config.width());
  std::vector<T> y(out);
  const long before = calls().allocations;
  long same = 0;
  for (size_t t = 0; t < size_t(shape.steps); ++t) {
    stream.step(p.x.data() + t * in, y.data());
    same += std::memcmp(y.data(), p.y.data() + t * out, out * sizeof(T)) == 0;
  }
  const long taken = calls().allocations - before;
  CHECK(same == shape.steps, "%s on %s: %ld of %d steps", shape.name, backend.name, same, shape.steps);
  CHECK(taken == 0 || threads > 1, "%s on %s: %ld allocations", shape.name, backend.name, taken);
  std::vector<T> h(p.hn.size()), c(p.cn.size());
  stream.read_state(h.data(), has_c ? c.data() : nullptr);
  CHECK(hash_of(h) == hash_of(p.hn), "%s on %s: h", shape.name, backend.name);
  CHECK(!has_c || hash_of(c) == hash_of(p.cn), "%s on %s: c", shape.name, backend.name);
}

}  // namespace

void test_stream() {
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
