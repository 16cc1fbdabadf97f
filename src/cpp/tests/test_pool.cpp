// Rows of a pool, joined and stepped in another order, have the bits of the sequence; a step takes no memory.
#include <cstring>

#include "pool.h"
#include "tests/check.h"
#include "tests/interpose.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

template <class T>
void pool_equals_sequence(const Shape& shape, const Backend& backend, int threads) {
  Problem<T> p(shape);
  std::shared_ptr<const Network<T>> net = p.network(backend);
  net->run(p.sequence(1));
  const Config& c = shape.config;
  const bool lstm = c.cell == Cell::lstm;
  const size_t batch = size_t(shape.batch), in = size_t(c.input), out = size_t(c.width());
  const size_t cell = size_t(c.hidden);
  StreamPool<T> pool(net, shape.batch + 3, threads);
  std::vector<int64_t> ids(batch);
  const int64_t gone = pool.join();
  for (int64_t& id : ids) id = pool.join();
  pool.leave(pool.find(gone));
  CHECK(pool.find(gone) < 0 && pool.find(pool.join()) >= 0 && pool.find(gone) < 0, "%s: an id came back", shape.name);
  std::vector<T> h(size_t(c.layers) * out), cells(size_t(c.layers) * cell);
  for (size_t row = 0; row < batch; ++row) {
    for (size_t layer = 0; layer < size_t(c.layers); ++layer) {
      std::copy_n(p.h0.data() + (layer * batch + row) * out, out, h.data() + layer * out);
      if (lstm) std::copy_n(p.c0.data() + (layer * batch + row) * cell, cell, cells.data() + layer * cell);
    }
    pool.write_state(pool.find(ids[row]), h.data(), lstm ? cells.data() : nullptr);
  }
  // Backwards: place i of a step is row batch - 1 - i.
  std::vector<int64_t> order(ids.rbegin(), ids.rend());
  std::vector<T> x(batch * in), y(batch * out);
  long same = 0;
  const long before = calls().allocations;
  for (size_t t = 0; t < size_t(shape.steps); ++t) {
    for (size_t i = 0; i < batch; ++i) {
      std::copy_n(p.x.data() + (t * batch + batch - 1 - i) * in, in, x.data() + i * in);
    }
    pool.select(order.data(), int64_t(batch));
    pool.step(x.data(), y.data());
    for (size_t i = 0; i < batch; ++i) {
      same += std::memcmp(y.data() + i * out, p.y.data() + (t * batch + batch - 1 - i) * out, out * sizeof(T)) == 0;
    }
  }
  const long taken = calls().allocations - before;
  CHECK(same == long(batch) * shape.steps, "%s on %s: %ld rows differ", shape.name, backend.name,
        long(batch) * shape.steps - same);
  CHECK(taken == 0 || threads > 1, "%s on %s: %ld allocations", shape.name, backend.name, taken);
}

}  // namespace

void test_pool() {
  for (const Backend* backend : usable_backends()) {
    for (Shape shape : shapes()) {
      shape.ragged = false;
      shape.config.bidirectional = false;
      for (int threads = 1; threads <= 3; ++threads) {
        pool_equals_sequence<float>(shape, *backend, threads);
        pool_equals_sequence<double>(shape, *backend, threads);
      }
    }
  }
}

}  // namespace fastrnn::tests
