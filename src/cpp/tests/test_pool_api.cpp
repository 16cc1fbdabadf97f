// Pools through the public API: a stream has the bits of one of its own, whoever comes and goes beside it; what is
// wrong changes nothing.
#include <algorithm>
#include <limits>
#include <utility>

#include "tests/api_check.h"
#include "tests/refused.h"

namespace fastrnn::tests {
namespace {

// A pool, and beside it a stream for each of its streams that is told the same.
template <class T>
struct Choir {
  Choir(const Config& c, int64_t capacity, int threads)
      : config(c), layer(ready_layer<T>(c)), pool(required(layer.pool(capacity, threads))) {}

  uint64_t draw_below(uint64_t n) { return mixed(++drawn) % n; }

  void join() {
    const bool room = pool.size() < pool.capacity();
    int64_t id = 77;
    const Status status = pool.join(&id);
    CHECK(status == (room ? Status::ok : Status::full) && (id >= 0) == room && (room || id == -1), "%s, id %lld",
          name(status), static_cast<long long>(id));
    if (room) ids.push_back(id), alone.push_back(required(layer.stream()));
  }
  void leave(size_t i) {
    required(pool.leave(ids[i]));
    CHECK(!pool.contains(ids[i]) && pool.leave(ids[i]) == Status::invalid_argument, "a stream that has left");
    ids.erase(ids.begin() + ptrdiff_t(i)), alone.erase(alone.begin() + ptrdiff_t(i));
  }
  void reset(size_t i) { required(pool.reset(ids[i])), required(alone[i].reset()); }
  void copy_state(size_t from, size_t to) {
    std::vector<T> h(size_t(config.num_layers * config.output_size()));
    std::vector<T> c(size_t(config.num_layers * config.hidden_size));
    const bool has_c = pool.get_state(ids[from], h.data()) != Status::ok;  // which asks for c then
    T* const cells = has_c ? c.data() : nullptr;
    required(pool.get_state(ids[from], h.data(), cells));
    required(pool.set_state(ids[to], h.data(), cells)), required(alone[to].set_state(h.data(), cells));
  }

  // Some of the streams, or all, in an order of its own. Rows have gaps between them, and lie step after step or stream
  // after stream.
  void advance(int64_t steps, bool all) {
    std::vector<size_t> chosen;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (all || draw_below(3)) chosen.insert(chosen.begin() + ptrdiff_t(draw_below(chosen.size() + 1)), i);
    }
    const int64_t n = int64_t(chosen.size());
    const bool dense = steps == 1 && draw_below(2), by_stream = !dense && draw_below(2);
    const ptrdiff_t x_width = config.input_size + (dense ? 0 : 2), y_width = config.output_size() + (dense ? 0 : 3);
    const ptrdiff_t x_step = by_stream ? x_width : n * x_width, x_row = by_stream ? steps * x_width : x_width;
    const ptrdiff_t y_step = by_stream ? y_width : n * y_width, y_row = by_stream ? steps * y_width : y_width;
    const auto x = draw<T>(size_t(n * steps * x_width), ++drawn);
    std::vector<T> y(size_t(n * steps * y_width), T(77)), expected = y;
    std::vector<int64_t> named;
    for (size_t i = 0; i < chosen.size(); ++i) {
      named.push_back(ids[chosen[i]]);
      required(alone[chosen[i]].process(steps, x.data() + ptrdiff_t(i) * x_row, x_step,
                                        expected.data() + ptrdiff_t(i) * y_row, y_step));
    }
    required(dense ? pool.step(named.data(), n, x.data(), y.data())
                   : pool.process(named.data(), n, steps, x.data(), x_step, x_row, y.data(), y_step, y_row));
    CHECK(equal_bits(y, expected), "cell %d, H %d, %d steps of %d streams, %s", int(config.cell), config.hidden_size,
          int(steps), int(n), by_stream ? "stream after stream" : "step after step");
  }

  Config config;
  Layer<T> layer;
  StreamPool<T> pool;
  std::vector<int64_t> ids;
  std::vector<Stream<T>> alone;
  uint64_t drawn = 0;
};

template <class T>
void come_and_go(const Config& config, int threads) {
  Choir<T> choir(config, 7, threads);
  for (int i = 0; i < 80; ++i) {
    const uint64_t command = choir.draw_below(8);
    if (choir.ids.empty() || command < 2) {
      choir.join();
      continue;
    }
    const size_t one = choir.draw_below(choir.ids.size()), other = choir.draw_below(choir.ids.size());
    if (command == 2) choir.leave(one);
    if (command == 3) choir.reset(one);
    if (command == 4) choir.copy_state(one, other);
    if (command > 4) choir.advance(int64_t(choir.draw_below(9)), false);
    CHECK(choir.pool.size() == int64_t(choir.ids.size()), "%d streams", int(choir.pool.size()));
  }
}

// More of them than pass through the layers at once, and more steps.
template <class T>
void crowd(const Config& config, int threads) {
  constexpr int kStreams = 205;
  Choir<T> choir(config, kStreams, threads);
  for (int i = 0; i < kStreams; ++i) choir.join();
  for (const int64_t steps : {1, 9, 2}) choir.advance(steps, true);
  for (int i = 0; i < kStreams - 2; ++i) choir.leave(0);
  choir.advance(150, true);
  choir.leave(0);
  for (int i = 0; i < 3; ++i) choir.advance(150, true);  // a thread that helps has woken
}

void ids_are_never_reused() {
  StreamPool<float> pool = required(ready_layer<float>(config_of(Cell::gru, 2, 3)).pool(2));
  std::vector<int64_t> seen, here;
  for (int i = 0; i < 100; ++i) {
    int64_t id = -1;
    required(pool.join(&id));
    CHECK(id >= 0 && std::find(seen.begin(), seen.end(), id) == seen.end(), "an id came back");
    seen.push_back(id), here.push_back(id);
    if (here.size() < 2) continue;
    required(pool.leave(here[size_t(i / 3 % 2)]));
    here.erase(here.begin() + i / 3 % 2);
  }
}

// Also when the layer has other weights, or is gone.
template <class T>
void pools_keep_what_they_had() {
  const Config config = config_of(Cell::lstm, 3, 7, 2, 5, false, false);
  StreamPool<T> pool;
  Stream<T> alone;
  {
    Layer<T> layer = ready_layer<T>(config);
    pool = required(layer.pool(4)), alone = required(layer.stream());
    const std::vector<T> weights(84, T(0.25));
    required(layer.set("weight_ih_l0", weights.data(), weights.size()));
    CHECK(layer.pool(4).error().status() == Status::not_ready, "a pool of weights that are not prepared");
    required(layer.prepare());
  }
  int64_t id;
  required(pool.join(&id));
  const auto x = draw<T>(3, 1);
  std::vector<T> y(5), expected(5);
  required(pool.step(&id, 1, x.data(), y.data())), required(alone.step(x.data(), expected.data()));
  CHECK(equal_bits(y, expected), "its weights");
  CHECK(pool.input_size() == 3 && pool.output_size() == 5 && pool.capacity() == 4 && pool.size() == 1, "its sizes");
  const Config found = pool.config();
  CHECK(found.cell == config.cell && found.input_size == 3 && found.hidden_size == 7 && found.num_layers == 2 &&
            found.proj_size == 5 && !found.bias && int(found.dtype) == (sizeof(T) == 8),
        "its architecture");
}

void wrong_pools() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::lstm, 2, 3));
  refused(layer.pool(0), Status::invalid_argument, "capacity: expected an integer from 1 to 1048576, got 0");
  refused(layer.pool((1 << 20) + 1), Status::invalid_argument, "capacity: expected an integer from 1 to 1048576");
  refused(layer.pool(1, 0), Status::invalid_argument, "threads: expected an integer from 1 to 1024, got 0");
  refused(layer.pool(1, 1025), Status::invalid_argument, "threads");
  refused(required(Layer<float>::make(config_of(Cell::gru, 2, 3))).pool(1), Status::not_ready, "prepare");
  refused(ready_layer<float>(config_of(Cell::gru, 2, 3, 1, 0, true)).pool(1), Status::invalid_argument,
          "layer: expected one direction");
  refused(Layer<float>().pool(1), Status::invalid_argument, "layer: expected a pointer, got NULL");
  CHECK(fastrnn_pool_create(layer.handle(), 1, 1, nullptr, nullptr) == FASTRNN_INVALID_ARGUMENT, "no out");
  fastrnn_config config = {};
  const StreamPool<float> pool = required(layer.pool(1));
  CHECK(fastrnn_pool_config(pool.handle(), &config) == FASTRNN_INVALID_ARGUMENT, "a config without a size");
  CHECK(fastrnn_pool_config(pool.handle(), nullptr) == FASTRNN_INVALID_ARGUMENT, "no config");
  fastrnn_pool_free(nullptr);
}

// A pool of three places, two of them taken, whose streams must not have advanced in the end.
struct Untouched {
  Untouched() : pool(required(ready_layer<float>(config_of(Cell::lstm, 2, 3)).pool(3))) {
    for (int64_t& id : ids) required(pool.join(&id));
    required(pool.leave(ids[2]));
  }
  ~Untouched() {
    const float zero[3] = {};
    for (int i = 0; i < 2; ++i) {
      float h[3], c[3];
      required(pool.get_state(ids[i], h, c));
      CHECK(!std::memcmp(h, zero, sizeof h) && !std::memcmp(c, zero, sizeof c), "a stream has advanced");
    }
    for (const float value : y) CHECK(value == 9, "something was written");
    CHECK(pool.size() == 2, "%d streams", int(pool.size()));
  }

  StreamPool<float> pool;
  int64_t ids[3];
  float x[8] = {1, 1, 1, 1, 1, 1, 1, 1}, y[12] = {9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
};

void wrong_ids() {
  Untouched u;
  const int64_t gone[] = {u.ids[0], u.ids[2]}, twice[] = {u.ids[1], u.ids[1]}, negative[] = {-1},
                huge[] = {std::numeric_limits<int64_t>::max()}, many[] = {u.ids[0], u.ids[1], 2, 3};
  const std::pair<const int64_t*, int64_t> wrong[] = {{gone, 2},    {twice, 2},      {negative, 1},
                                                      {huge, 1},    {many, 4},       {u.ids, -1},
                                                      {nullptr, 1}, {odd(u.ids), 1}, {u.ids, 1 << 20}};
  for (const auto& [ids, n] : wrong) {
    for (const Status status : {u.pool.step(ids, n, u.x, u.y), u.pool.process(ids, n, 1, u.x, 4, 2, u.y, 6, 3),
                                u.pool.process(ids, n, 0, u.x, 4, 2, u.y, 6, 3), u.pool.reset(ids, n)}) {
      CHECK(status == Status::invalid_argument, "%d streams: %s", int(n), name(status));
    }
  }
  float state[3];
  for (const int64_t id : {u.ids[2], int64_t(-1), std::numeric_limits<int64_t>::max(), int64_t(3)}) {
    CHECK(!u.pool.contains(id), "contains");
    for (const Status status :
         {u.pool.leave(id), u.pool.reset(id), u.pool.get_state(id, state, state), u.pool.set_state(id, u.x, u.x)}) {
      CHECK(status == Status::invalid_argument, "%s", name(status));
    }
  }
  CHECK(u.pool.join(nullptr) == Status::invalid_argument && u.pool.join(odd(u.ids)) == Status::invalid_argument,
        "join");
}

void wrong_arrays() {
  Untouched u;
  const float* const odd_x = odd(&u.x[0]);
  float* const odd_y = odd(&u.y[0]);
  const auto process = [&](int64_t steps, const float* x, ptrdiff_t x_step, ptrdiff_t x_row, float* y, ptrdiff_t y_step,
                           ptrdiff_t y_row) {
    return u.pool.process(u.ids, 2, steps, x, x_step, x_row, y, y_step, y_row);
  };
  constexpr ptrdiff_t most = std::numeric_limits<ptrdiff_t>::max();
  for (const Status status :
       {u.pool.step(u.ids, 2, nullptr, u.y),  u.pool.step(u.ids, 2, u.x, nullptr), u.pool.step(u.ids, 2, odd_x, u.y),
        u.pool.step(u.ids, 2, u.x, odd_y),    process(-1, u.x, 4, 2, u.y, 6, 3),   process(2, nullptr, 4, 2, u.y, 6, 3),
        process(2, u.x, 4, 2, nullptr, 6, 3), process(2, odd_x, 4, 2, u.y, 6, 3),  process(2, u.x, 4, 2, odd_y, 6, 3),
        process(2, u.x, -4, 2, u.y, 6, 3),    process(2, u.x, 4, -2, u.y, 6, 3),   process(2, u.x, 4, 2, u.y, -6, 3),
        process(2, u.x, 4, 2, u.y, 6, -3),    process(2, u.x, 4, 2, u.y, 5, 3),    process(2, u.x, 4, 2, u.y, 6, 2),
        process(2, u.x, most, 2, u.y, 6, 3),  process(2, u.x, 4, most, u.y, 6, 3), process(2, u.x, 4, 2, u.y, most, 3),
        process(2, u.x, 4, 2, u.y, 6, most),  process(most, u.x, 0, 0, u.y, 6, 3)}) {
    CHECK(status == Status::invalid_argument, "%s", name(status));
  }
  float h[3], c[3];
  for (const Status status : {u.pool.get_state(u.ids[0], nullptr, c), u.pool.get_state(u.ids[0], h),
                              u.pool.get_state(u.ids[0], odd(&h[0]), c), u.pool.set_state(u.ids[0], nullptr, u.x),
                              u.pool.set_state(u.ids[0], u.x), u.pool.set_state(u.ids[0], odd_x, u.x),
                              u.pool.set_state(u.ids[0], u.x, odd_x)}) {
    CHECK(status == Status::invalid_argument, "%s", name(status));
  }
  // Nobody, or no step: nothing is read.
  required(u.pool.step(nullptr, 0, nullptr, nullptr)), required(u.pool.reset(nullptr, 0));
  required(u.pool.process(nullptr, 0, 5, nullptr, 0, 0, nullptr, 0, 0));
  required(u.pool.process(u.ids, 2, 0, nullptr, 0, 0, nullptr, 0, 0));
  StreamPool<float> of_gru = required(ready_layer<float>(config_of(Cell::gru, 2, 3)).pool(1));
  int64_t id;
  required(of_gru.join(&id));
  CHECK(of_gru.set_state(id, u.x, u.x) == Status::invalid_argument &&
            of_gru.get_state(id, h, c) == Status::invalid_argument && of_gru.get_state(id, h) == Status::ok &&
            h[0] == 0,
        "a GRU has no c");
}

void no_pool() {
  StreamPool<float> pool = required(ready_layer<float>(config_of(Cell::gru, 2, 3)).pool(2));
  const StreamPool<float> moved = std::move(pool);
  const StreamPool<double> empty;
  CHECK(moved && !pool && !empty && moved.capacity() == 2, "owners");
  int64_t id = 5;
  float x[2] = {1, 1}, y[3] = {9, 9, 9};
  for (const Status status :
       {pool.join(&id), pool.leave(0), pool.step(&id, 1, x, y), pool.process(&id, 1, 1, x, 2, 2, y, 3, 3),
        pool.reset(0), pool.reset(&id, 1), pool.get_state(0, y), pool.set_state(0, x)}) {
    CHECK(status == Status::invalid_argument, "%s", name(status));
  }
  fastrnn_config config;
  fastrnn_config_default(&config);
  CHECK(fastrnn_pool_config(nullptr, &config) == FASTRNN_INVALID_ARGUMENT, "a config of nothing");
  CHECK(!pool.size() && !pool.capacity() && !pool.input_size() && !pool.output_size() && !pool.contains(0) &&
            pool.config().input_size == 1 && id == 5 && y[0] == 9,
        "nothing has no size");
}

}  // namespace

void test_pool_api() {
  const Config configs[] = {config_of(Cell::rnn_relu, 4, 9),    config_of(Cell::rnn_tanh, 1, 40, 2),
                            config_of(Cell::lstm, 3, 20, 2, 7), config_of(Cell::gru, 5, 33, 3),
                            config_of(Cell::lstm, 40, 130),     config_of(Cell::lstm, 64, 64)};
  for (const Config& config : configs) {
    for (int threads = 1; threads <= 3; ++threads) {
      come_and_go<float>(config, threads), come_and_go<double>(config, threads);
      crowd<float>(config, threads);
    }
  }
  ids_are_never_reused();
  pools_keep_what_they_had<float>(), pools_keep_what_they_had<double>();
  wrong_pools();
  wrong_ids();
  wrong_arrays();
  no_pool();
}

}  // namespace fastrnn::tests
