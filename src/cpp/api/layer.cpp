// Recurrent layers: weights by name, packing, inference.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <new>

#include "api/handles.h"
#include "file/text.h"
#include "registry.h"
#include "system/limits.h"

namespace fastrnn {
namespace {

static_assert(int(Cell::rnn_tanh) == FASTRNN_RNN_TANH && int(Cell::rnn_relu) == FASTRNN_RNN_RELU &&
                  int(Cell::lstm) == FASTRNN_LSTM && int(Cell::gru) == FASTRNN_GRU && kCells == 4,
              "a cell of the API is one of the core by a cast");

// Fields of structs are only ever added at the end.
constexpr size_t kFirstConfig = offsetof(fastrnn_config, proj_size) + sizeof(int32_t);

std::vector<Parameter> parameters_of(const Config& c, int gates) {
  std::vector<Parameter> all;
  for (int sweep = 0; sweep < c.sweeps(); ++sweep) {
    const std::string end = "_l" + std::to_string(c.layer_of(sweep)) + (sweep % c.directions() ? "_reverse" : "");
    each_weight_of(c, gates, sweep, [&](Weight w, int64_t rows, int64_t columns) {
      all.push_back({kWeightNames[int(w)] + end, {rows, columns}, columns ? 2 : 1});
    });
  }
  return all;
}

Config checked(const fastrnn_config& c) {
  if (c.size < kFirstConfig) refuse("config: its size is not set; use fastrnn_config_default");
  within(c.cell, 0, kCells - 1, "cell");
  within(c.dtype, 0, 1, "dtype");
  within(c.input_size, 1, kMaxSize, "input_size");
  within(c.hidden_size, 1, kMaxSize, "hidden_size");
  within(c.num_layers, 1, kMaxSize, "num_layers");
  within(c.bias, 0, 1, "bias");
  within(c.bidirectional, 0, 1, "bidirectional");
  if (c.proj_size && c.cell != FASTRNN_LSTM) refuse("proj_size: expected 0, only an LSTM has a projection");
  if (c.proj_size < 0 || c.proj_size >= c.hidden_size) {
    refuse("proj_size: expected an integer from 0, below hidden_size = " + std::to_string(c.hidden_size) + ", got " +
           std::to_string(c.proj_size));
  }
  return {Cell(c.cell), c.input_size, c.hidden_size, c.num_layers, c.bias != 0, c.bidirectional != 0, c.proj_size};
}

// Sizes that no address space holds are refused before they overflow: weights, and twice as much for packing them.
void check_bytes(const Config& c, int gates) {
  const double widest = std::max({c.input, c.width(), c.hidden}) + 2.0 * kPad;
  const double each = 3.0 * (gates * (c.hidden + 2.0 * kPad) * 2 + c.projection + kPad) * widest;
  if (each * c.sweeps() * sizeof(double) > kAddressable / 32) throw std::bad_alloc();
}

template <class T>
void allocate(fastrnn_layer& layer) {
  Typed<T>& typed = layer.typed.emplace<Typed<T>>();
  const auto lay_out = [&](Arena arena) {
    typed.parameters.clear();
    for (const Parameter& p : layer.parameters) typed.parameters.push_back(arena.take<T>(p.count()));
    return arena.used();
  };
  typed.values = Block(lay_out(Arena()));
  lay_out(Arena(typed.values.data()));
}

size_t element_bytes(const fastrnn_layer& layer) { return layer.dtype() ? sizeof(double) : sizeof(float); }

char* values_of(const fastrnn_layer& layer, size_t index) {
  return std::visit([&](const auto& typed) { return reinterpret_cast<char*>(typed.parameters[index]); }, layer.typed);
}

void set(fastrnn_layer& layer, size_t index) {
  layer.parameters[index].set = true;
  layer.prepared = 0;
}

std::string names_of(const fastrnn_layer& layer) {
  std::string text;
  for (const Parameter& p : layer.parameters) {
    if (text.size() > 200) return text + ", ...";
    text += (text.empty() ? "" : ", ") + p.name;
  }
  return text;
}

}  // namespace

std::unique_ptr<fastrnn_layer> make_layer(const fastrnn_config& config) {
  auto layer = std::make_unique<fastrnn_layer>();
  layer->config = checked(config);
  const int gates = current_backend().f32.cells[config.cell].gates;
  check_bytes(layer->config, gates);
  layer->parameters = parameters_of(layer->config, gates);
  config.dtype ? allocate<double>(*layer) : allocate<float>(*layer);
  return layer;
}

// Before anything is allocated by what a file says of itself: it must have the tensors for it.
void check_stored(const fastrnn_config& config, const Safetensors& file, const std::string& prefix) {
  const Config c = [&] {
    try {
      return checked(config);
    } catch (const Failure& failure) {
      throw Failure{FASTRNN_FORMAT, "metadata: " + prefix + failure.message};
    }
  }();
  const size_t count = c.weight_count();
  if (count > file.tensors().size()) {
    throw Failure{FASTRNN_FORMAT, "weights: expected " + std::to_string(count) + " tensors for a layer of " +
                                      std::to_string(c.layers) + ", the file has " +
                                      std::to_string(file.tensors().size())};
  }
  for (const Parameter& p : parameters_of(c, current_backend().f32.cells[config.cell].gates)) {
    stored(file, prefix + p.name, config.dtype, p.shape, p.rank);
  }
}

void assign(fastrnn_layer& layer, const Safetensors& file, const std::string& prefix) {
  const std::vector<StoredTensor>& all = file.tensors();
  std::vector<const StoredTensor*> found;
  std::vector<bool> placed(all.size());  // a search in `found` for each tensor takes minutes for a million of them
  for (const Parameter& p : layer.parameters) {
    found.push_back(&stored(file, prefix + p.name, layer.dtype(), p.shape, p.rank));
    placed[size_t(found.back() - all.data())] = true;
  }
  for (const StoredTensor& t : all) {
    const bool mine =
        t.name.compare(0, prefix.size(), prefix) == 0 && t.name.find('.', prefix.size()) == std::string::npos;
    if (mine && !placed[size_t(&t - all.data())]) {
      throw Failure{FASTRNN_FORMAT, "weights: the file's tensor '" + shown(t.name, 200) +
                                        "' has no place in the layer, which has " + names_of(layer)};
    }
  }
  for (size_t i = 0; i < found.size(); ++i) {
    file.copy(*found[i], values_of(layer, i));
    set(layer, i);
  }
}

void prepare(fastrnn_layer& layer, int threads) {
  static std::atomic<uint64_t> count{0};
  for (const Parameter& p : layer.parameters) {
    if (!p.set) throw Failure{FASTRNN_NOT_READY, "layer: " + p.name + " was never set"};
  }
  std::visit(
      [&](auto& typed) {
        using Net = typename std::decay_t<decltype(typed.network)>::element_type;
        // A stream that shares it keeps the weights it was made with.
        std::shared_ptr<Net> network = typed.network;
        if (!network || network.use_count() > 2) {
          network = std::make_shared<Net>(layer.config, current_backend());
        }
        std::atomic_thread_fence(std::memory_order_acquire);  // after a stream's last use in another thread
        network->pack(typed.parameters.data(), threads);
        typed.network = std::move(network);
      },
      layer.typed);
  layer.prepared = ++count;
}

void need_ready(const fastrnn_layer& layer) {
  if (!layer.prepared) throw Failure{FASTRNN_NOT_READY, "layer: its weights are not prepared; call prepare"};
}

fastrnn_tensor view_of(const fastrnn_layer& layer, size_t index) {
  const Parameter& p = layer.parameters[index];
  const char* const values = p.set ? values_of(layer, index) : nullptr;
  return {p.name.c_str(), kDtypes[layer.dtype()], values, p.count() * element_bytes(layer), p.shape, p.rank};
}

void copy_config(const fastrnn_config& from, fastrnn_config* to) {
  const size_t size = to->size;
  if (size < kFirstConfig) refuse("config: its size is not set; use fastrnn_config_default");
  std::memcpy(to, &from, std::min(size, sizeof from));
  to->size = size;
}

void copy_config(const Config& c, int dtype, fastrnn_config* to) {
  const fastrnn_config from = {sizeof from, int(c.cell), dtype,           c.input,     c.hidden,
                               c.layers,    c.bias,      c.bidirectional, c.projection};
  copy_config(from, to);
}

}  // namespace fastrnn

using namespace fastrnn;

void fastrnn_config_default(fastrnn_config* config) noexcept {
  if (!config) return;
  // No byte beyond the first version's: the caller's header may be as old.
  const fastrnn_config first = {kFirstConfig, FASTRNN_LSTM, FASTRNN_FLOAT32, 1, 1, 1, 1, 0, 0};
  std::memcpy(config, &first, kFirstConfig);
}

fastrnn_status fastrnn_layer_create(const fastrnn_config* config, fastrnn_layer** out, fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    need(config, "config");
    return make_layer(*config);
  });
}

fastrnn_status fastrnn_layer_load(const fastrnn_weights* weights, const char* prefix, int32_t dtype,
                                  fastrnn_layer** out, fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    need(weights, "weights"), need(prefix, "prefix");
    within(dtype, 0, 1, "dtype");
    fastrnn_config config = config_of(weights->file, prefix);
    config.dtype = dtype;
    check_stored(config, weights->file, prefix);
    auto layer = make_layer(config);
    assign(*layer, weights->file, prefix);
    prepare(*layer, 1);
    return layer;
  });
}

void fastrnn_layer_free(fastrnn_layer* layer) noexcept { delete layer; }

fastrnn_status fastrnn_layer_config(const fastrnn_layer* layer, fastrnn_config* config) noexcept {
  return guarded(nullptr, [&] {
    need(layer, "layer"), need(config, "config");
    copy_config(layer->config, layer->dtype(), config);
  });
}

size_t fastrnn_layer_count(const fastrnn_layer* layer) noexcept { return layer ? layer->parameters.size() : 0; }

fastrnn_status fastrnn_layer_at(const fastrnn_layer* layer, size_t index, fastrnn_tensor* out,
                                fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(layer, "layer"), need(out, "out");
    if (index >= layer->parameters.size()) {
      refuse("index: expected less than " + std::to_string(layer->parameters.size()) + ", got " +
             std::to_string(index));
    }
    *out = view_of(*layer, index);
  });
}

fastrnn_status fastrnn_layer_set(fastrnn_layer* layer, const char* name, const void* values, size_t count,
                                 fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(layer, "layer"), need(name, "name"), need(values, "values");
    const auto& all = layer->parameters;
    const auto found = std::find_if(all.begin(), all.end(), [&](const Parameter& p) { return p.name == name; });
    if (found == all.end()) {
      refuse("name: expected one of " + names_of(*layer) + ", got '" + shown(name, 64) + "'");
    }
    if (count != found->count()) {
      refuse(found->name + ": expected " + std::to_string(found->count()) + " values, got " + std::to_string(count));
    }
    const size_t index = size_t(found - all.begin());
    std::memcpy(values_of(*layer, index), values, count * element_bytes(*layer));
    set(*layer, index);
  });
}

fastrnn_status fastrnn_layer_assign(fastrnn_layer* layer, const fastrnn_weights* weights, const char* prefix,
                                    fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(layer, "layer"), need(weights, "weights"), need(prefix, "prefix");
    assign(*layer, weights->file, prefix);
  });
}

fastrnn_status fastrnn_layer_prepare(fastrnn_layer* layer, int32_t threads, fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(layer, "layer");
    prepare(*layer, check_threads(threads));
  });
}
