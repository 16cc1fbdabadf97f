// Every wrong argument is an error that names it, and leaves things as they were.
#include <cstring>
#include <limits>

#include "tests/api_check.h"

namespace fastrnn::tests {
namespace {

template <class Value>
void refused(const Result<Value>& result, Status status, const char* text) {
  CHECK(!result, "accepted, expected: %s", text);
  if (result) return;
  CHECK(result.error().status() == status, "%s, not %s: %s", name(result.error().status()), name(status), text);
  CHECK(std::strstr(result.error().message(), text), "'%s' has no '%s'", result.error().message(), text);
}

void wrong_configs() {
  const auto bad = [](Config c, const char* text) { refused(Layer<float>::make(c), Status::invalid_argument, text); };
  bad(config_of(Cell::lstm, 0, 4), "input_size: expected an integer from 1 to 1048576, got 0");
  bad(config_of(Cell::lstm, 4, -1), "hidden_size: expected an integer from 1 to 1048576, got -1");
  bad(config_of(Cell::lstm, 4, 1 << 21), "hidden_size");
  bad(config_of(Cell::lstm, 4, 4, 0), "num_layers");
  bad(config_of(Cell::gru, 4, 4, 1, 2), "proj_size: expected 0, only an LSTM");
  bad(config_of(Cell::lstm, 4, 4, 1, 4), "proj_size: expected an integer from 0 to 3, got 4");
  bad(config_of(Cell(9), 4, 4), "cell");
  refused(Layer<double>::make(config_of(Cell::lstm, 1 << 20, 1 << 20, 1 << 20)), Status::out_of_memory,
          "out of memory");
  refused(Linear<float>::make(4, 0), Status::invalid_argument, "out_features");
  fastrnn_layer* out = reinterpret_cast<fastrnn_layer*>(8);
  Error error;
  const fastrnn_config empty = {};
  CHECK(fastrnn_layer_create(&empty, &out, error.raw()) == FASTRNN_INVALID_ARGUMENT && !out, "a config without a size");
  CHECK(fastrnn_layer_create(nullptr, &out, nullptr) == FASTRNN_INVALID_ARGUMENT, "no config");
  CHECK(fastrnn_layer_create(&empty, nullptr, nullptr) == FASTRNN_INVALID_ARGUMENT, "no out");
}

void wrong_weights() {
  Layer<float> layer = required(Layer<float>::make(config_of(Cell::gru, 2, 3)));
  const float values[27] = {};
  refused(layer.prepare(), Status::not_ready, "weight_ih_l0 was never set");
  refused(layer.run(sequence()), Status::not_ready, "prepare");
  refused(layer.stream(), Status::not_ready, "prepare");
  refused(layer.set("weight_ih_l1", values, 18), Status::invalid_argument,
          "expected one of weight_ih_l0, weight_hh_l0");
  refused(layer.set((std::string(63, 'a') + "\xC3\xA9").c_str(), values, 18), Status::invalid_argument, "a'");
  refused(layer.set("\xFFw\xC3\xA9\xC3", values, 18), Status::invalid_argument, "got '?w\xC3\xA9?'");
  refused(layer.set("weight_ih_l0", values, 17), Status::invalid_argument, "weight_ih_l0: expected 18 values, got 17");
  refused(layer.set("weight_ih_l0", nullptr, 18), Status::invalid_argument, "values");
  refused(layer.set(nullptr, values, 18), Status::invalid_argument, "name");
  refused(layer.at(4), Status::invalid_argument, "index: expected less than 4, got 4");
  refused(layer.prepare(0), Status::invalid_argument, "threads: expected an integer from 1 to 1024, got 0");
}

void wrong_sequences() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::gru, 2, 3));
  std::vector<float> x(40), y(60), more(61);
  Sequence good = sequence();
  good.steps = 5, good.batch = 4, good.x = x.data(), good.y = y.data();
  good.x_step = 8, good.x_row = 2, good.y_step = 12, good.y_row = 3;
  required(layer.run(good));
  const auto bad = [&](auto change, const char* text) {
    Sequence s = good;
    change(s);
    refused(layer.run(s), Status::invalid_argument, text);
    refused(layer.forward(s), Status::invalid_argument, text);
  };
  const int64_t lengths[] = {1, 2, 6, 0};
  bad([](Sequence& s) { s.size = 0; }, "size");
  bad([](Sequence& s) { s.steps = -1; }, "steps: expected an integer from 0 to 2147483647, got -1");
  bad([](Sequence& s) { s.batch = 1 << 21; }, "batch");
  bad([](Sequence& s) { s.threads = 0; }, "threads");
  bad([](Sequence& s) { s.x = nullptr; }, "x: expected a pointer, got NULL");
  bad([](Sequence& s) { s.y = nullptr; }, "y: expected a pointer");
  bad([](Sequence& s) { s.x_row = -2; }, "x_step, x_row: expected strides that are not negative");
  bad([](Sequence& s) { s.y_row = 2; }, "y_step, y_row: expected rows of 3 elements that do not overlap");
  bad([](Sequence& s) { s.y_step = 11; }, "y_step, y_row");
  bad([](Sequence& s) { s.x_step = std::numeric_limits<ptrdiff_t>::max(); }, "address space");
  bad([&](Sequence& s) { s.c0 = x.data(); }, "c0, cn: expected NULL, only an LSTM");
  bad([&](Sequence& s) { s.lengths = lengths; }, "lengths: expected from 0 to 5, got 6 for row 2");
  bad([&](Sequence& s) { s.y = reinterpret_cast<char*>(more.data()) + 1; }, "y: expected a pointer aligned to 4 bytes");
  Sequence empty = good;
  empty.steps = 0, empty.x = empty.y = nullptr;
  required(layer.run(empty));
  empty = good, empty.batch = 0;
  required(layer.run(empty));
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
  const Stream<float> moved = std::move(stream);
  CHECK(stream.step(x, y) == Status::invalid_argument, "a stream that was moved away");
  moved.get_state(h, c);
  CHECK(y[0] == 9 && std::memcmp(h, zero, sizeof h) == 0, "nothing has changed");
  fastrnn_stream_free(nullptr), fastrnn_layer_free(nullptr), fastrnn_tape_free(nullptr);
  fastrnn_linear_free(nullptr), fastrnn_weights_free(nullptr);
}

// What is saved can be loaded, here and in Python.
void wrong_prefixes() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::gru, 2, 3));
  const std::string path = scratch_file("refused.safetensors"), e = "\xC3\xA9", a63(63, 'a');
  const auto bad = [&](const Result<void>& result, const char* text) {
    refused(result, Status::invalid_argument, text);
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    CHECK(!file, "a file was written, expected: %s", text);
    if (file) std::fclose(file), std::remove(path.c_str());
  };
  const auto one = [&](const std::string& prefix) { return save(path.c_str(), {{prefix.c_str(), layer}}); };
  bad(save(path.c_str(), {{"rnn", layer}, {"rnn2", layer}}), "prefix: expected '' or a name and '.', got 'rnn'");
  bad(save(path.c_str(), {{"rnn.", layer}, {"rnn.", layer}}), "prefix: 'rnn.' a second time");
  bad(save(path.c_str(), {{"rnn.", layer}, {"", layer}}), "prefix: expected names for several modules, got ''");
  bad(one(std::string(8000000, 'a') + '.'), "prefix: expected names that fit a header of 100000000 bytes");  // 13 times
  bad(one("."), "got '.'");
  bad(one(a63 + e), (a63 + "'").c_str());
  bad(one("rnn\xFF."), "prefix: expected UTF-8, got the byte 255 after 'rnn'");
  bad(one(e + "\xC3."), ("got the byte 195 after '" + e + "'").c_str());
  bad(one("\xED\xA0\x80."), "got the byte 237 after ''");
  const fastrnn_module none = {};
  Error error;
  CHECK(fastrnn_save(path.c_str(), &none, 0, error.raw()) == FASTRNN_INVALID_ARGUMENT, "no modules");
  for (const std::string& prefix : {std::string(), e + ".", std::string("a.b.")}) {
    required(one(prefix));
    required(Layer<float>::load(required(Weights::open(path.c_str())), prefix.c_str()));
    std::remove(path.c_str());
  }
}

}  // namespace

void test_errors() {
  wrong_configs();
  wrong_weights();
  wrong_sequences();
  wrong_streams();
  wrong_prefixes();
}

}  // namespace fastrnn::tests
