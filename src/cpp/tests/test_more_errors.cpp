// As test_errors.cpp has it: wrong arguments of heads, of what is saved, and handles that are not there.
#include <cstring>
#include <limits>

#include "tests/api_check.h"
#include "tests/refused.h"

namespace fastrnn::tests {
namespace {

void wrong_heads() {
  Linear<float> with = required(Linear<float>::make(2, 2)), without = required(Linear<float>::make(2, 2, false));
  float w[4] = {1, 2, 3, 4}, x[5] = {1, 1, 1, 1, 1}, y[5] = {9, 9, 9, 9, 9};
  const auto bad = [](const Result<void>& result, const char* text) {
    refused(result, Status::invalid_argument, text);
  };
  refused(with.run(x, y, 1), Status::not_ready, "linear: its weights were never set");
  CHECK(with.step(x, y) == Status::not_ready && with.process(1, x, 2, y, 2) == Status::not_ready, "without weights");
  bad(with.set(nullptr, w), "weight: expected a pointer, got NULL");
  bad(with.set(w, nullptr), "bias: expected a pointer, got NULL");
  bad(without.set(w, w), "bias: expected NULL, the layer was made without");
  refused(without.run(x, y, 1), Status::not_ready, "linear: its weights were never set");
  required(with.set(w, w)), required(without.set(w, nullptr));
  float *const odd_x = odd(&x[0]), *const odd_y = odd(&y[0]);
  bad(with.run(x, y, -1), "rows: expected an integer from 0 to 2147483647, got -1");
  bad(with.run(x, y, int64_t(1) << 31), "rows: expected an integer from 0 to 2147483647, got 2147483648");
  bad(with.run(x, y, 1, 0), "threads: expected an integer from 1 to 1024, got 0");
  bad(with.run(nullptr, y, 1), "x: expected a pointer, got NULL");
  bad(with.run(x, nullptr, 1), "y: expected a pointer, got NULL");
  bad(with.run(odd_x, y, 2), "x: expected a pointer aligned to 4 bytes");
  bad(with.run(x, odd_y, 2), "y: expected a pointer aligned to 4 bytes");
  constexpr ptrdiff_t most = std::numeric_limits<ptrdiff_t>::max();
  for (const Status status :
       {with.step(nullptr, y), with.step(x, nullptr), with.step(odd_x, y), with.step(x, odd_y),
        with.process(-1, x, 2, y, 2), with.process(1, nullptr, 2, y, 2), with.process(1, x, 2, nullptr, 2),
        with.process(1, odd_x, 2, y, 2), with.process(1, x, 2, odd_y, 2), with.process(2, x, -2, y, 2),
        with.process(2, x, 2, y, -2), with.process(2, x, 2, y, 1), with.process(2, x, most, y, 2),
        with.process(2, x, 2, y, most), with.process(most, x, 0, y, 2)}) {
    CHECK(status == Status::invalid_argument, "%s", name(status));
  }
  required(with.run(nullptr, nullptr, 0));  // nothing to read
  required(with.process(0, nullptr, 2, nullptr, 2));
  CHECK(y[0] == 9 && y[4] == 9, "something was written");
  fastrnn_linear* out = nullptr;
  for (const int32_t value : {-1, 2}) {
    CHECK(fastrnn_linear_create(2, 2, value, 0, &out, nullptr) == FASTRNN_INVALID_ARGUMENT, "a bias of %d", value);
    CHECK(fastrnn_linear_create(2, 2, 1, value, &out, nullptr) == FASTRNN_INVALID_ARGUMENT, "a dtype of %d", value);
  }
}

// A handle that is not there.
void no_handles() {
  const fastrnn_sequence s = Sequence<float>().raw();
  const fastrnn_gradients g = Gradients<float>().raw();
  fastrnn_config config;
  fastrnn_config_default(&config), fastrnn_config_default(nullptr);
  fastrnn_tensor tensor;
  fastrnn_layer* layer = nullptr;
  fastrnn_linear* linear = nullptr;
  fastrnn_tape* tape = nullptr;
  fastrnn_stream* stream = nullptr;
  const float x[1] = {};
  float y[1];
  const fastrnn_status all[] = {fastrnn_layer_load(nullptr, "", 0, &layer, nullptr),
                                fastrnn_layer_config(nullptr, &config),
                                fastrnn_layer_at(nullptr, 0, &tensor, nullptr),
                                fastrnn_layer_set(nullptr, "", x, 1, nullptr),
                                fastrnn_layer_assign(nullptr, nullptr, "", nullptr),
                                fastrnn_layer_prepare(nullptr, 1, nullptr),
                                fastrnn_layer_run(nullptr, &s, nullptr),
                                fastrnn_layer_forward(nullptr, &s, &tape, nullptr),
                                fastrnn_layer_backward(nullptr, nullptr, &g, nullptr),
                                fastrnn_weights_open(nullptr, nullptr, nullptr),
                                fastrnn_weights_at(nullptr, 0, &tensor, nullptr),
                                fastrnn_weights_find(nullptr, "", &tensor, nullptr),
                                fastrnn_weights_config(nullptr, "", &config, nullptr),
                                fastrnn_linear_load(nullptr, "", 0, &linear, nullptr),
                                fastrnn_linear_set(nullptr, x, x, nullptr),
                                fastrnn_linear_run(nullptr, x, y, 1, 1, nullptr),
                                fastrnn_linear_step(nullptr, x, y),
                                fastrnn_linear_process(nullptr, 1, x, 1, y, 1),
                                fastrnn_stream_create(nullptr, 1, 1, &stream, nullptr),
                                fastrnn_stream_config(nullptr, &config),
                                fastrnn_stream_step(nullptr, x, y),
                                fastrnn_stream_process(nullptr, 1, x, 1, 1, y, 1, 1),
                                fastrnn_stream_reset(nullptr),
                                fastrnn_stream_reset_row(nullptr, 0),
                                fastrnn_stream_get_state(nullptr, y, y),
                                fastrnn_stream_set_state(nullptr, x, x),
                                fastrnn_save(nullptr, nullptr, 1, nullptr),
                                fastrnn_serialize(nullptr, 1, nullptr, 0, nullptr, nullptr)};
  for (const fastrnn_status& status : all) {
    CHECK(status == FASTRNN_INVALID_ARGUMENT, "call %td: %s", &status - all, fastrnn_status_name(status));
  }
  CHECK(!fastrnn_layer_count(nullptr) && !fastrnn_weights_count(nullptr) && !fastrnn_weights_metadata(nullptr, "a") &&
            !fastrnn_linear_in_features(nullptr) && !fastrnn_linear_out_features(nullptr) &&
            !fastrnn_stream_input_size(nullptr) && !fastrnn_stream_output_size(nullptr) &&
            !fastrnn_stream_batch_size(nullptr),
        "nothing has no size");
  CHECK(!std::strcmp(fastrnn_status_name(-1), "unknown status") &&
            !std::strcmp(fastrnn_status_name(FASTRNN_INTERNAL), "internal error") &&
            !std::strcmp(fastrnn_status_name(FASTRNN_FULL), "full") &&
            !std::strcmp(fastrnn_status_name(FASTRNN_FULL + 1), "unknown status"),
        "names");
}

// Owners of nothing, from the start or after a move.
void empty_owners() {
  const std::string path = scratch_file("empty.safetensors");
  const auto bad = [](const Result<void>& result, const char* text) {
    refused(result, Status::invalid_argument, text);
  };
  Layer<float> layer = ready_layer<float>(config_of(Cell::gru, 2, 3));
  Stream<float> stream = required(layer.stream());
  Linear<float> linear = required(Linear<float>::make(2, 2));
  CHECK(layer && stream && linear && required(layer.forward({})), "owners of something");
  const Layer<float> layer_too = std::move(layer);
  const Stream<float> stream_too = std::move(stream);
  const Linear<float> linear_too = std::move(linear);
  const Weights weights;
  const Tape tape;
  CHECK(layer_too && stream_too && linear_too && !layer && !stream && !linear && !weights && !tape, "after a move");
  CHECK(!Layer<double>() && !Stream<double>() && !Linear<double>(), "from the start");
  float x[2] = {1, 1}, y[2] = {9, 9};
  for (const Status status : {stream.step(x, y), stream.process(1, x, 2, y, 2), stream.reset(), stream.get_state(y),
                              stream.set_state(x), linear.step(x, y), linear.process(1, x, 2, y, 2)}) {
    CHECK(status == Status::invalid_argument, "%s", name(status));
  }
  bad(layer.prepare(), "layer: expected a pointer, got NULL");
  bad(layer.run({}), "layer: expected a pointer, got NULL");
  bad(layer_too.backward(tape, {}), "tape: expected a pointer, got NULL");
  bad(linear.run(x, y, 1), "linear: expected a pointer, got NULL");
  bad(save(path.c_str(), {{"a.", layer}}), "modules: expected a layer or a linear");
  refused(layer.stream(), Status::invalid_argument, "layer: expected a pointer, got NULL");
  refused(weights.config(), Status::invalid_argument, "weights: expected a pointer, got NULL");
  CHECK(!stream.batch_size() && !stream.input_size() && !linear.in_features() && !layer.count() && !weights.count(),
        "nothing has no size");
  CHECK(y[0] == 9 && stream.config().input_size == 1 && layer.config().input_size == 1, "a config of nothing");
}

// A name or a path of any length leaves room for what is wrong with it.
void long_names() {
  const std::string name(5000, 'n'), path = scratch_file("long_names.safetensors");
  const Layer<float> layer = ready_layer<float>(config_of(Cell::gru, 2, 3));
  required(save(path.c_str(), {{"", layer}}));
  const Weights file = required(Weights::open(path.c_str()));
  std::remove(path.c_str());
  const auto reason = [](const auto& result, const char* start, const char* end) {
    const std::string text = result ? "" : result.error().message();
    const size_t length = std::strlen(end);
    CHECK(text.rfind(start, 0) == 0 && text.find("n...n") != std::string::npos && text.size() > length &&
              text.compare(text.size() - length, length, end) == 0,
          "%s", text.c_str());
  };
  reason(Weights::open(name.c_str()), "path: cannot open 'nnn", "nnn': File name too long");
  reason(save(name.c_str(), {{"", layer}}), "path: cannot write 'nnn", "nnn': File name too long");
  reason(file.find(name.c_str()), "name: the file has no tensor 'nnn", "nnn'");
  reason(Layer<float>::load(file, name.c_str()), "metadata: expected 'nnn",
         "nnncell', which the file does not have; its modules are ''");
  // Halves of characters at neither side of the gap.
  for (size_t ahead = 0; ahead < 2; ++ahead) {
    std::string accents(ahead, 'n');
    for (int i = 0; i < 1000; ++i) accents += "\xC3\xA9";
    const std::string text = file.find(accents.c_str()).error().message();
    CHECK(text.find("\xC3\xA9...\xC3\xA9") != std::string::npos && text.find('?') == std::string::npos, "%s",
          text.c_str());
  }
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
  bad(one(std::string(8000000, 'a') + '.'), "expected text that fits a header of 100000000 bytes");  // 13 times
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

void wrong_modules() {
  const std::string path = scratch_file("refused_too.safetensors");
  const Layer<float> layer = ready_layer<float>(config_of(Cell::gru, 2, 3));
  Layer<float> half = required(Layer<float>::make(config_of(Cell::gru, 2, 3)));
  const float values[18] = {};
  required(half.set("weight_ih_l0", values, 18));
  Linear<float> head = required(Linear<float>::make(1, 1));
  const auto bad = [&](fastrnn_module module, fastrnn_status status, const char* text) {
    const fastrnn_module modules[] = {Module("good.", layer), module};
    Error error;
    CHECK(fastrnn_save(path.c_str(), modules, 2, error.raw()) == status, "%s, not %s", error.message(), text);
    CHECK(std::strstr(error.message(), text), "'%s' has no '%s'", error.message(), text);
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    CHECK(!file, "a file was written, expected: %s", text);
    if (file) std::fclose(file), std::remove(path.c_str());
  };
  bad({"a.", half.handle(), nullptr, nullptr, 0}, FASTRNN_NOT_READY, "layer: a.weight_hh_l0 was never set");
  bad({"a.", nullptr, head.handle(), nullptr, 0}, FASTRNN_NOT_READY, "linear: a.weight was never set");
  required(head.set(values, values));
  bad({"a.", layer.handle(), head.handle(), nullptr, 0}, FASTRNN_INVALID_ARGUMENT,
      "expected a layer or a linear, one of the two");
  bad({"a.", nullptr, nullptr, nullptr, 0}, FASTRNN_INVALID_ARGUMENT, "expected a layer or a linear, one of the two");
  bad({nullptr, layer.handle(), nullptr, nullptr, 0}, FASTRNN_INVALID_ARGUMENT, "prefix: expected a pointer, got NULL");
}

}  // namespace

void test_more_errors() {
  wrong_heads();
  no_handles();
  empty_owners();
  long_names();
  wrong_prefixes();
  wrong_modules();
}

}  // namespace fastrnn::tests
