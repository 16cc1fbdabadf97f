// Rows of a pool, joined and advanced in another order, have the bits of the sequence; steps take no memory. A damaged
// book is refused.
#include <algorithm>

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
  const bool has_c = p.cell().has_cell_state;
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
      if (has_c) std::copy_n(p.c0.data() + (layer * batch + row) * cell, cell, cells.data() + layer * cell);
    }
    pool.write_state(pool.find(ids[row]), h.data(), has_c ? cells.data() : nullptr);
  }
  // The first half step by step, backwards: place i of a step is row batch - 1 - i. The rest in two blocks.
  std::vector<int64_t> order(ids.rbegin(), ids.rend());
  std::vector<T> x(batch * in), y(batch * out), all(p.y.size());
  const long before = calls().allocations;
  const size_t half = size_t(shape.steps) / 2;
  for (size_t t = 0; t < half; ++t) {
    for (size_t i = 0; i < batch; ++i) {
      std::copy_n(p.x.data() + (t * batch + batch - 1 - i) * in, in, x.data() + i * in);
    }
    pool.select(order.data(), int64_t(batch));
    pool.step(x.data(), y.data());
    for (size_t i = 0; i < batch; ++i) {
      std::copy_n(y.data() + i * out, out, all.data() + (t * batch + batch - 1 - i) * out);
    }
  }
  const size_t ends[] = {half, (half + size_t(shape.steps)) / 2, size_t(shape.steps)};
  for (int i = 0; i < 2; ++i) {
    const size_t t = ends[i];
    pool.select(ids.data(), int64_t(batch));
    pool.process(int64_t(ends[i + 1] - t), {p.x.data() + t * batch * in, ptrdiff_t(batch * in), c.input},
                 {all.data() + t * batch * out, ptrdiff_t(batch * out), c.output()});
  }
  const long taken = calls().allocations - before;
  CHECK(hash_of(all) == hash_of(p.y), "%s on %s, %d threads", shape.name, backend.name, threads);
  CHECK(taken == 0 || threads > 1, "%s on %s: %ld allocations", shape.name, backend.name, taken);
}

// Three slots: ids go up in steps of four, and id % 4 is the slot.
void damaged_books_are_refused() {
  using Pool = StreamPool<float>;
  const Problem<float> p(shapes()[0]);
  const std::shared_ptr<const Network<float>> net = p.network(*usable_backends()[0]);
  Pool pool(net, 3, 1);
  for (int i = 0; i < 3; ++i) pool.join();
  pool.leave(1), pool.leave(2);
  const Pool::Book book = pool.book();  // ids 0 -1 -1, next 4 5 6, free 1 2
  CHECK(pool.restore(book) && pool.find(0) == 0 && pool.size() == 1, "a book of the pool itself");
  constexpr int64_t most = INT64_MAX / 2 / 4 * 4;  // for slot 0
  struct Damage {
    const char* what;
    void (*change)(Pool::Book&);
  };
  const Damage damages[] = {
      {"a slot without an id", [](Pool::Book& b) { b.ids.pop_back(); }},
      {"a slot without a next id", [](Pool::Book& b) { b.next.pop_back(); }},
      {"a slot too many", [](Pool::Book& b) { b.ids.push_back(-1), b.next.push_back(7), b.free.push_back(3); }},
      {"a free slot below all", [](Pool::Book& b) { b.free.push_back(-1); }},
      {"a free slot past all", [](Pool::Book& b) { b.free.push_back(3); }},
      {"a slot that is free twice", [](Pool::Book& b) { b.free = {1, 2, 2}; }},
      {"an empty slot that is not free", [](Pool::Book& b) { b.free.pop_back(); }},
      {"a free slot that is taken", [](Pool::Book& b) { b.free.push_back(0); }},
      {"an id below zero", [](Pool::Book& b) { b.ids[0] = -4; }},
      {"an id that comes next", [](Pool::Book& b) { b.ids[0] = 4; }},
      {"an id yet to come", [](Pool::Book& b) { b.ids[0] = 8; }},
      {"an id of another slot", [](Pool::Book& b) { b.ids[0] = 1; }},
      {"a next id below zero", [](Pool::Book& b) { b.next[2] = -2; }},
      {"a next id of another slot", [](Pool::Book& b) { b.next[2] = 5; }},
      {"a next id near the end of all", [](Pool::Book& b) { b.next[0] = INT64_MAX / 4 * 4; }},
      {"a next id past the last", [](Pool::Book& b) { b.next[0] = most + 4; }},
  };
  for (const Damage& damage : damages) {
    Pool::Book damaged = book;
    damage.change(damaged);
    CHECK(!pool.restore(damaged), "accepted: %s", damage.what);
    const Pool::Book& now = pool.book();
    CHECK(now.ids == book.ids && now.next == book.next && now.free == book.free, "changed: %s", damage.what);
  }
  Pool::Book late = book;
  late.ids = {most - 4, -1, -1}, late.next = {most, 5, 6}, late.free = {2, 1};
  CHECK(pool.restore(late) && pool.find(most - 4) == 0 && pool.join() == 5 && pool.join() == 6, "the last ids of all");
}

}  // namespace

void test_pool() {
  damaged_books_are_refused();
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
