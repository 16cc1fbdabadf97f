// What layers and heads take from a file, and what they refuse.
#include <cstring>

#include "tests/api_check.h"
#include "tests/stored.h"

namespace fastrnn::tests {
namespace {

void layers_of_wrong_files() {
  const auto load = [](const std::string& header, size_t bytes, const char* text) {
    const Bytes file = file_of(header, bytes);
    const Weights weights = required(Weights::parse(file.data(), file.size()));
    const auto layer = Layer<float>::load(weights);
    CHECK(!layer && layer.error().status() == Status::format, "accepted, expected: %s", text);
    if (!layer) CHECK(std::strstr(layer.error().message(), text), "'%s' has no '%s'", layer.error().message(), text);
  };
  const auto meta = [](const char* hidden, const char* layers) {
    return std::string("{\"__metadata__\":{\"format\":\"fastrnn\",\"format_version\":\"1\",\"cell\":\"rnn_tanh\",") +
           "\"input_size\":\"1\",\"num_layers\":\"" + layers + "\",\"bias\":\"false\",\"bidirectional\":\"false\"," +
           "\"proj_size\":\"0\",\"hidden_size\":\"" + hidden + "\"},";
  };
  const std::string w = tensor("weight_ih_l0", "F32", "2,1", "0,8"), u = tensor("weight_hh_l0", "F32", "2,2", "8,24");
  load("{" + w + "," + u + "}", 24, "not written by fastrnn");
  load(meta("2", "1") + w + "}", 8, "expected 2 tensors for a layer of 1, the file has 1");
  load(meta("1048576", "1048576") + w + "," + u + "}", 24, "expected 2097152 tensors");
  load(meta("1048576", "1") + w + "," + u + "}", 24, "weight_ih_l0: expected shape [1048576, 1], got [2, 1]");
  load(meta("0", "1") + w + "," + u + "}", 24, "'hidden_size' to be an integer from 1 to 1048576, got '0'");
  load(meta("-2", "1") + w + "," + u + "}", 24, "integer from 1 to 1048576, got '-2'");
  load(meta((std::string(31, 'x') + "\xC3\xA9").c_str(), "1") + w + "," + u + "}", 24, "x'");
  load(meta("2", "1") + w + "," + u + "," + tensor("bias_ih_l0", "F32", "2", "24,32") + "}", 32, "has no place");
  load(meta("2", "1") + w + "," + tensor("weight_hh_l0", "I16", "2,4", "8,24") + "}", 24,
       "expected dtype F32, F64, F16 or BF16, got I16");
  const Bytes foreign = file_of("{" + tensor("rnn.weight_ih_l0", "F32", "2,1", "0,8") + "," +
                                    tensor("rnn.weight_hh_l0", "F32", "2,2", "8,24") + "}",
                                24);
  Layer<float> layer = required(Layer<float>::make(config_of(Cell::rnn_tanh, 1, 2, 1, 0, false, false)));
  const Weights weights = required(Weights::parse(foreign.data(), foreign.size()));
  required(layer.assign(weights, "rnn.")), required(layer.prepare());
}

void heads_of_wrong_files() {
  const auto load = [](const char* in, const char* out, const char* shape, const char* text) {
    const std::string meta = std::string("{\"__metadata__\":{\"format\":\"fastrnn\",\"format_version\":\"1\",") +
                             "\"cell\":\"linear\",\"bias\":\"false\",\"in_features\":\"" + in +
                             "\",\"out_features\":\"" + out + "\"},";
    const Bytes file = file_of(meta + tensor("weight", "F32", shape, "0,0") + "}", 0);
    const auto head = Linear<float>::load(required(Weights::parse(file.data(), file.size())));
    CHECK(!head && head.error().status() == Status::format, "accepted, or no format error: %s", text);
    if (!head) CHECK(std::strstr(head.error().message(), text), "'%s' has no '%s'", head.error().message(), text);
  };
  load("0", "1", "1,0", "'in_features' to be an integer from 1 to 1048576, got '0'");
  load("1", "0", "0,1", "'out_features' to be an integer from 1 to 1048576, got '0'");
  load("1048577", "1", "1,0", "to 1048576, got '1048577'");
}

// Which tensors belong to a layer, among many.
void strays() {
  constexpr int kLayers = 3000;
  std::string inside;
  long at = 0;
  const auto add = [&](const std::string& name) {
    const std::string offsets = std::to_string(at) + "," + std::to_string(at + 4);
    inside += (at ? "," : "") + tensor(name.c_str(), "F32", "1,1", offsets.c_str());
    at += 4;
  };
  add("another"), add("r"), add("rnn.a.b");
  for (int i = kLayers; i-- > 0;) {
    for (const char* name : {"rnn.weight_hh_l", "rnn.weight_ih_l"}) add(name + std::to_string(i));
  }
  Layer<float> layer = required(Layer<float>::make(config_of(Cell::rnn_tanh, 1, 1, kLayers, 0, false, false)));
  const auto assign = [&] {
    const Bytes file = file_of("{" + inside + "}", size_t(at));
    return layer.assign(required(Weights::parse(file.data(), file.size())), "rnn.");
  };
  required(assign());
  for (const char* name : {"rnn.", "rnn.weight_hh_l3000", "rnn.x"}) {
    const std::string before = inside;
    add(name);
    const auto result = assign();
    CHECK(result.error().status() == Status::format, "%s was accepted", name);
    CHECK(std::strstr(result.error().message(), (std::string("'") + name + "' has no place").c_str()), "%s",
          result.error().message());
    inside = before, at -= 4;
  }
}

}  // namespace

void test_loading() {
  layers_of_wrong_files();
  heads_of_wrong_files();
  strays();
}

}  // namespace fastrnn::tests
