// Files of weights: the handle, and what fastrnn writes into their metadata.
#include <cstring>

#include "api/handles.h"
#include "file/text.h"

namespace fastrnn {
namespace {

[[noreturn]] void wrong(const std::string& message) { throw Failure{FASTRNN_FORMAT, message}; }

void view(const Safetensors& file, const StoredTensor& t, fastrnn_tensor* out) {
  *out = {t.name.c_str(), t.dtype.c_str(), file.data(t), size_t(t.bytes()), t.shape.data(), int32_t(t.shape.size())};
}

const std::string& value(const Safetensors& file, const std::string& prefix, const char* name) {
  const std::string* const found = field(file, prefix, name);
  if (!found) wrong("metadata: expected '" + prefix + name + "', which the file does not have");
  return *found;
}

// The prefixes that a module of the file may be loaded by, in quotes; the first few of many. What Python has written
// beside them as "arrays", `find` finds.
std::string modules_of(const Safetensors& file) {
  const std::string field = "cell";
  std::string text;
  for (const auto& [key, kind] : file.metadata()) {
    if (key.size() < field.size() || key.compare(key.size() - field.size(), field.size(), field) != 0) continue;
    const std::string prefix = key.substr(0, key.size() - field.size());
    if (kind == "arrays" || (!prefix.empty() && prefix.back() != '.')) continue;
    if (text.size() > 200) return text + ", ...";
    text += (text.empty() ? "'" : ", '") + shown(prefix, 64) + "'";
  }
  return text;
}

}  // namespace

const std::string* field(const Safetensors& file, const std::string& prefix, const char* name) {
  const auto found = file.metadata().find(prefix + name);
  return found == file.metadata().end() ? nullptr : &found->second;
}

int integer_field(const Safetensors& file, const std::string& prefix, const char* name, int least) {
  const std::string& text = value(file, prefix, name);
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  const int number = digits && text.size() <= 7 ? std::stoi(text) : -1;
  if (number < least || number > kMaxSize) {
    wrong("metadata: expected '" + prefix + name + "' to be an integer from " + std::to_string(least) + " to " +
          std::to_string(kMaxSize) + ", got '" + shown(text, 32) + "'");
  }
  return number;
}

bool boolean_field(const Safetensors& file, const std::string& prefix, const char* name) {
  const std::string& text = value(file, prefix, name);
  if (text != "true" && text != "false") {
    wrong("metadata: expected '" + prefix + name + "' to be true or false, got '" + shown(text, 32) + "'");
  }
  return text == "true";
}

const std::string& kind_of(const Safetensors& file, const std::string& prefix) {
  const std::string* const format = field(file, "", "format");
  if (!format || *format != "fastrnn") {
    wrong("metadata: the file does not say what '" + prefix +
          "' is (it was not written by fastrnn); make a layer of its sizes, and assign the weights to it");
  }
  const std::string& version = value(file, "", "format_version");
  if (version != "1") wrong("metadata: expected format_version 1, got '" + shown(version, 32) + "'");
  if (const std::string* const kind = field(file, prefix, "cell")) return *kind;
  const std::string modules = modules_of(file);
  wrong("metadata: expected '" + prefix + "cell', which the file does not have" +
        (modules.empty() ? "" : "; its modules are " + modules));
}

const StoredTensor& stored(const Safetensors& file, const std::string& name) {
  const StoredTensor* const found = file.find(name);
  if (!found) wrong("weights: expected a tensor '" + name + "', which the file does not have");
  return *found;
}

const StoredTensor& stored(const Safetensors& file, const std::string& name, int dtype, const int64_t* shape,
                           int rank) {
  const StoredTensor& t = stored(file, name);
  if (dtype_of(t) != dtype) {
    wrong(name + ": expected dtype " + (dtype ? "F64" : "F32, F16 or BF16") + ", got " + t.dtype);
  }
  if (t.shape.size() != size_t(rank) || std::memcmp(t.shape.data(), shape, size_t(rank) * sizeof *shape) != 0) {
    wrong(name + ": expected shape " + shape_text(shape, size_t(rank)) + ", got " +
          shape_text(t.shape.data(), t.shape.size(), 8));
  }
  return t;
}

int dtype_of(const StoredTensor& tensor) {
  if (tensor.dtype == "F64") return FASTRNN_FLOAT64;
  if (tensor.dtype == "F32" || tensor.half()) return FASTRNN_FLOAT32;
  wrong(tensor.name + ": expected dtype F32, F64, F16 or BF16, got " + tensor.dtype);
}

fastrnn_config config_of(const Safetensors& file, const std::string& prefix) {
  const std::string& cell = kind_of(file, prefix);
  fastrnn_config config = {};
  fastrnn_config_default(&config);
  config.cell = -1;
  for (int i = 0; i < kCells; ++i) {
    if (cell == kCellNames[i]) config.cell = i;
  }
  if (config.cell < 0) {
    wrong("metadata: expected '" + prefix + "cell' to be " + cell_names() + ", got '" + shown(cell, 32) + "'");
  }
  config.input_size = integer_field(file, prefix, "input_size", 1);
  config.hidden_size = integer_field(file, prefix, "hidden_size", 1);
  config.num_layers = integer_field(file, prefix, "num_layers", 1);
  config.bias = boolean_field(file, prefix, "bias");
  config.bidirectional = boolean_field(file, prefix, "bidirectional");
  config.proj_size = integer_field(file, prefix, "proj_size", 0);
  config.dtype = dtype_of(stored(file, prefix + "weight_ih_l0"));
  return config;
}

}  // namespace fastrnn

using namespace fastrnn;

fastrnn_status fastrnn_weights_open(const char* path, fastrnn_weights** out, fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    need(path, "path");
    return std::make_unique<fastrnn_weights>(fastrnn_weights{Safetensors::open(path)});
  });
}

fastrnn_status fastrnn_weights_parse(const void* data, size_t bytes, fastrnn_weights** out,
                                     fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    need(data, "data");
    return std::make_unique<fastrnn_weights>(
        fastrnn_weights{Safetensors::parse(static_cast<const char*>(data), bytes)});
  });
}

void fastrnn_weights_free(fastrnn_weights* weights) noexcept { delete weights; }

size_t fastrnn_weights_count(const fastrnn_weights* weights) noexcept {
  return weights ? weights->file.tensors().size() : 0;
}

fastrnn_status fastrnn_weights_at(const fastrnn_weights* weights, size_t index, fastrnn_tensor* out,
                                  fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(weights, "weights"), need(out, "out");
    const auto& tensors = weights->file.tensors();
    if (index >= tensors.size()) {
      refuse("index: expected less than " + std::to_string(tensors.size()) + ", got " + std::to_string(index));
    }
    view(weights->file, tensors[index], out);
  });
}

fastrnn_status fastrnn_weights_find(const fastrnn_weights* weights, const char* name, fastrnn_tensor* out,
                                    fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(weights, "weights"), need(name, "name"), need(out, "out");
    const StoredTensor* const found = weights->file.find(name);
    if (!found) refuse("name: the file has no tensor '" + std::string(name) + "'");
    view(weights->file, *found, out);
  });
}

const char* fastrnn_weights_metadata(const fastrnn_weights* weights, const char* key) noexcept {
  try {
    if (!weights || !key) return nullptr;
    const std::string* const found = field(weights->file, "", key);
    return found ? found->c_str() : nullptr;
  } catch (...) {
    return nullptr;
  }
}

fastrnn_status fastrnn_weights_config(const fastrnn_weights* weights, const char* prefix, fastrnn_config* config,
                                      fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(weights, "weights"), need(prefix, "prefix"), need(config, "config");
    copy_config(config_of(weights->file, prefix), config);
  });
}
