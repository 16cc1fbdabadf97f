// What layers and heads take from a file, and what they refuse.
#include <cstring>
#include <map>

#include "tests/api_check.h"
#include "tests/stored.h"

namespace fastrnn::tests {
namespace {

using Fields = std::map<std::string, std::string>;

constexpr const char* kLeftOut = "left out";

// What fastrnn writes for a layer of two units, without bias, or for a head of 3 to 2; but for what is changed.
const Fields kLayer = {{"format", "fastrnn"}, {"format_version", "1"},    {"cell", "rnn_tanh"},
                       {"input_size", "1"},   {"hidden_size", "2"},       {"num_layers", "1"},
                       {"bias", "false"},     {"bidirectional", "false"}, {"proj_size", "0"}};
const Fields kHead = {{"format", "fastrnn"}, {"format_version", "1"}, {"cell", "linear"},
                      {"in_features", "3"},  {"out_features", "2"},   {"bias", "false"}};

Weights weights_of(const Fields& usual, const Fields& changed, const std::string& tensors, size_t bytes) {
  Fields fields = changed;
  fields.insert(usual.begin(), usual.end());
  std::string inside;
  for (const auto& [name, value] : fields) {
    if (value != kLeftOut) inside += (inside.empty() ? "\"" : ",\"") + name + "\":\"" + value + "\"";
  }
  const Bytes file = file_of("{\"__metadata__\":{" + inside + "}," + tensors + "}", bytes);
  return required(Weights::parse(file.data(), file.size()));
}

template <class Value>
void wrong(const Result<Value>& loaded, const char* text) {
  CHECK(!loaded, "accepted, expected: %s", text);
  if (loaded) return;
  CHECK(loaded.error().status() == Status::format, "%s: %s", name(loaded.error().status()), text);
  CHECK(std::strstr(loaded.error().message(), text), "'%s' has no '%s'", loaded.error().message(), text);
}

void layers_of_wrong_files() {
  const std::string w = tensor("weight_ih_l0", "F32", "2,1", "0,8"), u = tensor("weight_hh_l0", "F32", "2,2", "8,24");
  const std::string both = w + "," + u;
  const auto load = [](const Fields& changed, const std::string& tensors, size_t bytes, const char* text) {
    wrong(Layer<float>::load(weights_of(kLayer, changed, tensors, bytes)), text);
  };
  const auto field = [&](const char* name, const char* value, const char* text) {
    load({{name, value}}, both, 24, text);
  };
  required(Layer<float>::load(weights_of(kLayer, {}, both, 24)));
  field("format", kLeftOut, "not written by fastrnn");
  field("format", "pt", "not written by fastrnn");
  field("format_version", "2", "expected format_version 1, got '2'");
  field("format_version", kLeftOut, "expected 'format_version', which the file does not have");
  field("cell", kLeftOut, "expected 'cell', which the file does not have");
  load({{"cell", kLeftOut}, {"gru.cell", "gru"}, {"head.cell", "linear"}, {"norm.cell", "arrays"}, {"a_cell", "mine"}},
       both, 24, "expected 'cell', which the file does not have; its modules are 'gru.', 'head.'");
  field("cell", "linear", "'cell' to be rnn_tanh, rnn_relu, lstm or gru, got 'linear'");
  field("proj_size", "1", "proj_size: expected 0, only an LSTM");
  field("bias", "yes", "'bias' to be true or false, got 'yes'");
  field("bidirectional", "False", "'bidirectional' to be true or false, got 'False'");
  field("hidden_size", kLeftOut, "expected 'hidden_size', which the file does not have");
  for (const char* size : {"0", "-2", "+2", " 2", "2x", "2.0", "", "1048577", "00000002", "20000000000000000002"}) {
    field("hidden_size", size, ("'hidden_size' to be an integer from 1 to 1048576, got '" + std::string(size)).c_str());
  }
  field("hidden_size", (std::string(31, 'x') + "\xC3\xA9").c_str(), "x'");
  field("hidden_size", "1048576", "weight_ih_l0: expected shape [1048576, 1], got [2, 1]");
  load({{"hidden_size", "1048576"}, {"num_layers", "1048576"}}, both, 24, "expected 2097152 tensors");
  load({}, w, 8, "expected 2 tensors for a layer of 1, the file has 1");
  load({}, w + "," + tensor("w", "F32", "2,2", "8,24"), 24, "expected a tensor 'weight_hh_l0'");
  load({}, tensor("w", "F32", "2,1", "0,8") + "," + u, 24, "expected a tensor 'weight_ih_l0'");
  load({}, both + "," + tensor("bias_ih_l0", "F32", "2", "24,32"), 32, "has no place");
  load({}, w + "," + tensor("weight_hh_l0", "I16", "2,4", "8,24"), 24, "expected dtype F32, F64, F16 or BF16, got I16");
  load({}, w + "," + tensor("weight_hh_l0", "F32", "4", "8,24"), 24, "expected shape [2, 2], got [4]");
  load({}, w + "," + tensor("weight_hh_l0", "F32", "1,1,1,1,1,1,1,1,4", "8,24"), 24,
       "got [1, 1, 1, 1, 1, 1, 1, 1, ...]");
}

void layers_of_foreign_files() {
  const Bytes foreign = file_of("{" + tensor("rnn.weight_ih_l0", "F32", "2,1", "0,8") + "," +
                                    tensor("rnn.weight_hh_l0", "F32", "2,2", "8,24") + "}",
                                24);
  Layer<float> layer = required(Layer<float>::make(config_of(Cell::rnn_tanh, 1, 2, 1, 0, false, false)));
  const Weights weights = required(Weights::parse(foreign.data(), foreign.size()));
  wrong(Layer<float>::load(weights, "rnn."),
        "what 'rnn.' is (it was not written by fastrnn); make a layer of its sizes");
  required(layer.assign(weights, "rnn.")), required(layer.prepare());
}

void heads_of_wrong_files() {
  const std::string w = tensor("weight", "F32", "2,3", "0,24");
  const auto load = [](const Fields& changed, const std::string& tensors, size_t bytes, const char* text) {
    wrong(Linear<float>::load(weights_of(kHead, changed, tensors, bytes)), text);
  };
  const auto field = [&](const char* name, const char* value, const char* text) { load({{name, value}}, w, 24, text); };
  required(Linear<float>::load(weights_of(kHead, {}, w, 24)));
  field("format_version", "2", "expected format_version 1, got '2'");
  field("format", "pt", "not written by fastrnn");
  field("cell", "gru", "'cell' to be linear, got 'gru'");
  field("in_features", "0", "'in_features' to be an integer from 1 to 1048576, got '0'");
  field("in_features", "1048577", "to 1048576, got '1048577'");
  field("out_features", "0", "'out_features' to be an integer from 1 to 1048576, got '0'");
  field("out_features", "3", "weight: expected shape [3, 3], got [2, 3]");
  field("bias", "1", "'bias' to be true or false, got '1'");
  field("bias", "true", "expected a tensor 'bias'");
  load({{"bias", "true"}}, w + "," + tensor("bias", "F32", "3", "24,36"), 36, "bias: expected shape [2], got [3]");
  load({{"bias", "true"}}, w + "," + tensor("bias", "F64", "2", "24,40"), 40, "bias: expected dtype F32");
  load({}, tensor("weight", "F64", "2,3", "0,48"), 48, "weight: expected dtype F32, F16 or BF16, got F64");
  load({}, tensor("other", "F32", "2,3", "0,24"), 24, "expected a tensor 'weight'");
}

// Without metadata a head's sizes are those of its weight.
void heads_of_foreign_files() {
  const auto load = [](const std::string& tensors, size_t bytes) {
    const Bytes file = file_of("{" + tensors + "}", bytes);
    return Linear<float>::load(required(Weights::parse(file.data(), file.size())));
  };
  const std::string w = tensor("weight", "F32", "2,3", "0,24"), b = tensor("bias", "F32", "2", "24,32");
  required(load(w, 24));
  const Linear<float> head = required(load(w + "," + b, 32));
  CHECK(head.in_features() == 3 && head.out_features() == 2, "%d to %d", head.in_features(), head.out_features());
  wrong(load(w + "," + tensor("bias", "F32", "1", "24,28"), 28), "bias: expected shape [2], got [1]");
  const char* const shapes = "weight: expected shape [out_features, in_features], each to 1048576";
  for (const char* shape : {"0,3", "2,0", "0"}) wrong(load(tensor("weight", "F32", shape, "0,0"), 0), shapes);
  for (const char* shape : {"6", "1,2,3"}) wrong(load(tensor("weight", "F32", shape, "0,24"), 24), shapes);
  wrong(load(tensor("weight", "F16", "1048577,1", "0,2097154"), 2097154), shapes);
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
  layers_of_foreign_files();
  heads_of_wrong_files();
  heads_of_foreign_files();
  strays();
}

}  // namespace fastrnn::tests
