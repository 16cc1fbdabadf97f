// Every wrong argument of a recurrent layer is an error that names it, and leaves things as they were.
#include <cstddef>
#include <cstring>
#include <limits>

#include "tests/api_check.h"
#include "tests/refused.h"

namespace fastrnn::tests {
namespace {

void wrong_configs() {
  const auto bad = [](Config c, const char* text) { refused(Layer<float>::make(c), Status::invalid_argument, text); };
  bad(config_of(Cell::lstm, 0, 4), "input_size: expected an integer from 1 to 1048576, got 0");
  bad(config_of(Cell::lstm, 4, -1), "hidden_size: expected an integer from 1 to 1048576, got -1");
  bad(config_of(Cell::lstm, 4, 1 << 21), "hidden_size");
  bad(config_of(Cell::lstm, 4, 4, 0), "num_layers");
  bad(config_of(Cell::gru, 4, 4, 1, 2), "proj_size: expected 0, only an LSTM");
  bad(config_of(Cell::lstm, 4, 4, 1, 4), "proj_size: expected an integer from 0, below hidden_size = 4, got 4");
  bad(config_of(Cell::lstm, 4, 1, 1, 1), "proj_size: expected an integer from 0, below hidden_size = 1, got 1");
  bad(config_of(Cell::lstm, 4, 4, 1, -1), "proj_size: expected an integer from 0, below hidden_size = 4, got -1");
  bad(config_of(Cell(9), 4, 4), "cell");
  bad(config_of(Cell(-1), 4, 4), "cell: expected an integer from 0 to 3, got -1");
  refused(Layer<double>::make(config_of(Cell::lstm, 1 << 20, 1 << 20, 1 << 20)), Status::out_of_memory,
          "out of memory");
  refused(Linear<float>::make(4, 0), Status::invalid_argument, "out_features");
  fastrnn_layer* out = reinterpret_cast<fastrnn_layer*>(8);
  Error error;
  const fastrnn_config empty = {};
  CHECK(fastrnn_layer_create(&empty, &out, error.raw()) == FASTRNN_INVALID_ARGUMENT && !out, "a config without a size");
  for (int32_t fastrnn_config::* field :
       {&fastrnn_config::dtype, &fastrnn_config::bias, &fastrnn_config::bidirectional}) {
    for (const int32_t value : {-1, 2}) {
      fastrnn_config config;
      fastrnn_config_default(&config);
      config.*field = value;
      CHECK(fastrnn_layer_create(&config, &out, error.raw()) == FASTRNN_INVALID_ARGUMENT, "%d", value);
      CHECK(std::strstr(error.message(), "expected an integer from 0 to 1"), "%s", error.message());
    }
  }
  CHECK(fastrnn_layer_create(nullptr, &out, nullptr) == FASTRNN_INVALID_ARGUMENT, "no config");
  CHECK(fastrnn_layer_create(&empty, nullptr, nullptr) == FASTRNN_INVALID_ARGUMENT, "no out");
}

// A struct of a later version, which has more at its end: nothing is written there.
void configs_of_other_versions() {
  const Layer<double> layer = ready_layer<double>(config_of(Cell::gru, 2, 3));
  struct Later {
    fastrnn_config config;
    int32_t more[6];
  } later;
  std::memset(&later, 0x55, sizeof later);
  const Later before = later;
  for (const size_t size : {size_t(0), size_t(8), sizeof(fastrnn_config) - 1}) {
    later.config.size = size;
    CHECK(fastrnn_layer_config(layer.handle(), &later.config) == FASTRNN_INVALID_ARGUMENT, "a size of %zu", size);
    later.config.size = before.config.size;
    CHECK(std::memcmp(&later, &before, sizeof later) == 0, "written, although of %zu bytes", size);
  }
  later.config.size = sizeof later;
  CHECK(fastrnn_layer_config(layer.handle(), &later.config) == FASTRNN_OK, "a later version");
  CHECK(later.config.size == sizeof later && later.config.cell == FASTRNN_GRU && later.config.hidden_size == 3 &&
            later.config.dtype == FASTRNN_FLOAT64 && later.config.proj_size == 0,
        "the fields of this version");
  CHECK(std::memcmp(later.more, before.more, sizeof later.more) == 0, "written past what this version knows");
}

void wrong_weights() {
  Layer<float> layer = required(Layer<float>::make(config_of(Cell::gru, 2, 3)));
  const float values[27] = {};
  refused(layer.prepare(), Status::not_ready, "weight_ih_l0 was never set");
  refused(layer.run({}), Status::not_ready, "prepare");
  refused(layer.stream(), Status::not_ready, "prepare");
  refused(layer.set("weight_ih_l1", values, 18), Status::invalid_argument,
          "expected one of weight_ih_l0, weight_hh_l0");
  refused(layer.set((std::string(63, 'a') + "\xC3\xA9").c_str(), values, 18), Status::invalid_argument, "a'");
  refused(layer.set("\xFFw\xC3\xA9\xC3", values, 18), Status::invalid_argument, "got '?w\xC3\xA9?'");
  refused(layer.set("weight_ih_l0", values, 17), Status::invalid_argument, "weight_ih_l0: expected 18 values, got 17");
  refused(layer.set("weight_ih_l0", nullptr, 18), Status::invalid_argument, "values");
  refused(layer.set(nullptr, values, 18), Status::invalid_argument, "name");
  refused(layer.at(4), Status::invalid_argument, "index: expected less than 4, got 4");
  CHECK(!required(layer.at(0)).data, "values of a weight that was never set");
  required(layer.set("weight_ih_l0", values, 18));
  const Tensor view = required(layer.at(0));
  const float others[18] = {7};
  required(layer.set("weight_ih_l0", others, 18));
  CHECK(view.data && std::memcmp(view.data, others, sizeof others) == 0, "a view that does not see new values");
  refused(layer.prepare(0), Status::invalid_argument, "threads: expected an integer from 1 to 1024, got 0");
  refused(layer.prepare(1025), Status::invalid_argument, "threads: expected an integer from 1 to 1024, got 1025");
}

void wrong_sequences() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::gru, 2, 3));
  std::vector<float> x(40), y(60), more(61);
  Sequence<float> good;
  good.steps = 5, good.batch = 4, good.x = x.data(), good.y = y.data();
  good.x_step = 8, good.x_row = 2, good.y_step = 12, good.y_row = 3;
  required(layer.run(good));
  const auto bad = [&](auto change, const char* text) {
    Sequence<float> s = good;
    change(s);
    refused(layer.run(s), Status::invalid_argument, text);
    refused(layer.forward(s), Status::invalid_argument, text);
  };
  const int64_t lengths[] = {1, 2, 6, 0}, negative[] = {0, 5, 0, -1};
  bad([](Sequence<float>& s) { s.steps = -1; }, "steps: expected an integer from 0 to 2147483647, got -1");
  bad([](Sequence<float>& s) { s.batch = (1 << 28) + 1; },
      "batch: expected an integer from 0 to 268435456, got 268435457");
  bad([](Sequence<float>& s) { s.threads = 0; }, "threads");
  bad([](Sequence<float>& s) { s.x = nullptr; }, "x: expected a pointer, got NULL");
  bad([](Sequence<float>& s) { s.y = nullptr; }, "y: expected a pointer");
  bad([](Sequence<float>& s) { s.x_row = -2; }, "x_step, x_row: expected strides that are not negative");
  bad([](Sequence<float>& s) { s.y_row = 2; }, "y_step, y_row: expected rows of 3 elements that do not overlap");
  bad([](Sequence<float>& s) { s.y_step = 11; }, "y_step, y_row");
  bad([](Sequence<float>& s) { s.x_step = std::numeric_limits<ptrdiff_t>::max(); }, "address space");
  bad([](Sequence<float>& s) { s.x_row = std::numeric_limits<ptrdiff_t>::max(); }, "address space");
  bad([](Sequence<float>& s) { s.y_step = -3; }, "y_step, y_row: expected strides that are not negative");
  bad([](Sequence<float>& s) { s.y_row = 11, s.y_step = 2; },
      "do not overlap, got strides of 2 and 11");  // rows outermost
  bad([](Sequence<float>& s) { s.y_row = 13, s.y_step = 3; }, "do not overlap, got strides of 3 and 13");
  bad([](Sequence<float>& s) { s.batch = 1, s.y_step = 2; }, "do not overlap, got strides of 2 and 0");
  bad([](Sequence<float>& s) { s.steps = 1, s.y_row = 2; }, "do not overlap, got strides of 0 and 2");
  bad([&](Sequence<float>& s) { s.c0 = x.data(); }, "c0, cn: expected NULL, only an LSTM");
  bad([&](Sequence<float>& s) { s.cn = more.data(); }, "c0, cn: expected NULL, only an LSTM");
  bad([&](Sequence<float>& s) { s.x = odd(more.data()); }, "x: expected a pointer aligned to 4 bytes");
  bad([&](Sequence<float>& s) { s.h0 = odd(more.data()); }, "h0: expected a pointer aligned to 4 bytes");
  bad([&](Sequence<float>& s) { s.hn = odd(more.data()); }, "hn: expected a pointer aligned to 4 bytes");
  bad([](Sequence<float>& s) { s.threads = 1025; }, "threads: expected an integer from 1 to 1024, got 1025");
  bad([&](Sequence<float>& s) { s.lengths = lengths; }, "lengths: expected from 0 to 5, got 6 for row 2");
  bad([&](Sequence<float>& s) { s.lengths = reinterpret_cast<const int64_t*>(odd(more.data())); },
      "lengths: expected a pointer aligned to 8 bytes");
  bad([&](Sequence<float>& s) { s.lengths = negative; }, "lengths: expected from 0 to 5, got -1 for row 3");
  bad([&](Sequence<float>& s) { s.y = odd(more.data()); }, "y: expected a pointer aligned to 4 bytes");
  fastrnn_sequence sized = good.raw();
  Error error;
  sized.size = offsetof(fastrnn_sequence, threads);
  CHECK(fastrnn_layer_run(layer.handle(), &sized, error.raw()) == FASTRNN_INVALID_ARGUMENT &&
            std::strstr(error.message(), "sequence: its size is not set"),
        "%s", error.message());
  Sequence<float> empty = good;
  empty.steps = 0, empty.x = empty.y = nullptr;
  required(layer.run(empty));
  empty = good, empty.batch = 0;
  required(layer.run(empty));
}

// 2 steps of 2 rows.
void wrong_gradients(Cell cell) {
  const Layer<float> layer = ready_layer<float>(config_of(cell, 2, 3));
  const bool lstm = cell == Cell::lstm;
  const std::vector<float> nines(200, 9);
  std::vector<float> x(9), y(13), out = nines;
  Sequence<float> s;
  s.steps = s.batch = 2, s.x = x.data(), s.y = y.data(), s.x_step = 4, s.x_row = 2, s.y_step = 6, s.y_row = 3;
  const Tape tape = required(layer.forward(s));
  float* weights[4];
  for (int i = 0; i < 4; ++i) weights[i] = out.data() + 40 * i;
  Gradients<float> good;
  good.dy = y.data(), good.dy_step = 6, good.dy_row = 3, good.weights = weights;
  const auto bad = [&](auto change, const char* text) {
    Gradients<float> g = good;
    change(g);
    refused(layer.backward(tape, g), Status::invalid_argument, text);
  };
  float* const free = out.data() + 180;
  for (const size_t size : {size_t(0), offsetof(fastrnn_gradients, threads)}) {
    fastrnn_gradients sized = good.raw();
    Error error;
    sized.size = size;
    CHECK(fastrnn_layer_backward(layer.handle(), tape.handle(), &sized, error.raw()) == FASTRNN_INVALID_ARGUMENT &&
              std::strstr(error.message(), "gradients: its size is not set"),
          "%s", error.message());
  }
  bad([](Gradients<float>& g) { g.weights = nullptr; }, "weights: expected a pointer, got NULL");
  bad([](Gradients<float>& g) { g.threads = 0; }, "threads: expected an integer from 1 to 1024, got 0");
  bad([&](Gradients<float>& g) { g.dy = odd(y.data()); }, "dy: expected a pointer aligned to 4 bytes");
  bad([](Gradients<float>& g) { g.dy_row = -3; }, "dy_step, dy_row: expected strides that are not negative");
  bad([&](Gradients<float>& g) { g.dx = odd(free), g.dx_step = 4, g.dx_row = 2; }, "dx: expected a pointer aligned");
  bad([&](Gradients<float>& g) { g.dx = free, g.dx_step = 4, g.dx_row = 1; },
      "dx_step, dx_row: expected rows of 2 elements");
  const char* const no_cells = "dcn, dc0: expected NULL, only an LSTM has a cell state";
  const char *const dcn = lstm ? "dcn: expected a pointer aligned to 4 bytes" : no_cells,
                    *const dc0 = lstm ? "dc0: expected a pointer aligned to 4 bytes" : no_cells;
  double norms[5];  // of 1 sweep, 2 steps and 2 rows
  bad([&](Gradients<float>& g) { g.step_norms = odd(norms); }, "step_norms: expected a pointer aligned to 8 bytes");
  bad([&](Gradients<float>& g) { g.dhn = odd(free); }, "dhn: expected a pointer aligned to 4 bytes");
  bad([&](Gradients<float>& g) { g.dh0 = odd(free); }, "dh0: expected a pointer aligned to 4 bytes");
  bad([&](Gradients<float>& g) { g.dcn = lstm ? odd(free) : free; }, dcn);
  bad([&](Gradients<float>& g) { g.dc0 = lstm ? odd(free) : free; }, dc0);
  for (int i = 0; i < 4; ++i) {
    float* const before = weights[i];
    const std::string name = required(layer.at(size_t(i))).name;
    weights[i] = nullptr;
    bad([](Gradients<float>&) {}, (name + ": expected a pointer, got NULL").c_str());
    weights[i] = odd(before);
    bad([](Gradients<float>&) {}, (name + ": expected a pointer aligned to 4 bytes").c_str());
    weights[i] = before;
  }
  CHECK(out == nines, "something was written");
  const Layer<float> other = ready_layer<float>(config_of(cell, 2, 3));
  refused(other.backward(tape, good), Status::invalid_argument, "tape: expected one that this layer made");
  required(layer.backward(tape, good));
}

void wrong_streams() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::lstm, 2, 3));
  refused(layer.stream(0), Status::invalid_argument, "batch: expected an integer from 1 to 1048576, got 0");
  refused(layer.stream(1, 0), Status::invalid_argument, "threads");
  Stream<float> stream = required(layer.stream(2));
  float x[4] = {1, 1, 1, 1}, y[6] = {9, 9, 9, 9, 9, 9}, zero[6] = {}, h[6], c[6];
  const auto* const odd = reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + 1);
  for (const Status status :
       {stream.step(nullptr, y), stream.step(x, nullptr), stream.step(odd, y), stream.process(-1, x, 0, 0, y, 0, 0),
        stream.process(1, nullptr, 4, 2, y, 6, 3), stream.reset(-1), stream.reset(2), stream.get_state(nullptr, c),
        stream.get_state(h), stream.set_state(h)}) {
    CHECK(status == Status::invalid_argument, "%s", name(status));
  }
  constexpr ptrdiff_t most = std::numeric_limits<ptrdiff_t>::max();
  float many[24] = {};
  const auto bad = [&](int64_t steps, ptrdiff_t x_step, ptrdiff_t x_row, ptrdiff_t y_step, ptrdiff_t y_row) {
    const Status status = stream.process(steps, x, x_step, x_row, many, y_step, y_row);
    CHECK(status == Status::invalid_argument, "%td %td %td %td: %s", x_step, x_row, y_step, y_row, name(status));
  };
  bad(2, -1, 2, 6, 3), bad(2, 0, -2, 6, 3), bad(2, 0, 0, -6, 3), bad(2, 0, 0, 6, -3);  // backwards
  bad(2, 0, 0, 0, 3), bad(2, 0, 0, 5, 3), bad(2, 0, 0, 6, 2), bad(1, 0, 0, 0, 2);      // over each other
  bad(2, 0, 0, 3, 5), bad(3, 0, 0, 3, 8);                                              // and with rows outermost
  bad(2, most, 2, 6, 3), bad(2, 0, most, 6, 3), bad(2, 0, 0, most, 3), bad(2, 0, 0, 6, most), bad(most, 2, 0, 6, 3);
  for (const float value : many) CHECK(value == 0, "something was written");
  Stream<float> strided = required(layer.stream(2));
  CHECK(
      strided.process(3, x, 0, 0, many, 3, 9) == Status::ok && strided.process(1, x, -9, 0, many, -9, 3) == Status::ok,
      "strides that are fine");
  const Stream<float> moved = std::move(stream);
  CHECK(stream.step(x, y) == Status::invalid_argument, "a stream that was moved away");
  required(moved.get_state(h, c));
  CHECK(y[0] == 9 && std::memcmp(h, zero, sizeof h) == 0, "nothing has changed");
  fastrnn_stream_free(nullptr), fastrnn_layer_free(nullptr), fastrnn_tape_free(nullptr);
  fastrnn_linear_free(nullptr), fastrnn_weights_free(nullptr);
}

// A GRU has no c: neither to read nor to write.
void wrong_states() {
  const Layer<float> gru = ready_layer<float>(config_of(Cell::gru, 2, 3)),
                     lstm = ready_layer<float>(config_of(Cell::lstm, 2, 3));
  Stream<float> of_gru = required(gru.stream()), of_lstm = required(lstm.stream());
  float h[4] = {1, 2, 3, 4}, c[4] = {5, 6, 7, 8}, now[3] = {9, 9, 9}, cells[3];
  float *const odd_h = odd(&h[0]), *const odd_c = odd(&c[0]);
  for (const Status status : {of_gru.set_state(h, c), of_gru.get_state(now, c), of_gru.set_state(nullptr),
                              of_gru.set_state(odd_h), of_gru.get_state(odd_h), of_lstm.set_state(odd_h, c),
                              of_lstm.set_state(h, odd_c), of_lstm.set_state(nullptr, c), of_lstm.set_state(h),
                              of_lstm.get_state(odd_h, c), of_lstm.get_state(h, odd_c), of_lstm.get_state(now)}) {
    CHECK(status == Status::invalid_argument, "%s", name(status));
  }
  CHECK(now[0] == 9 && h[1] == 2 && c[0] == 5, "something was written");
  required(of_gru.get_state(now));
  CHECK(now[0] == 0 && now[2] == 0, "the state of the GRU was changed");
  required(of_lstm.get_state(now, cells));
  CHECK(now[0] == 0 && cells[0] == 0, "the state of the LSTM was changed");
}

}  // namespace

void test_errors() {
  wrong_configs();
  configs_of_other_versions();
  wrong_weights();
  wrong_sequences();
  wrong_gradients(Cell::lstm), wrong_gradients(Cell::gru);
  wrong_streams();
  wrong_states();
}

}  // namespace fastrnn::tests
