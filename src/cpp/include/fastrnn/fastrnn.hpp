// fastrnn for C++17: recurrent layers (RNN, LSTM, GRU) on CPUs. Values with owners over fastrnn.h, whose rules hold:
// shapes, errors, threads, alignment and what is real-time safe are said there at each function, and in docs/cpp.md.
// Errors are values; nothing throws. Everything is inline, so only the C symbols cross the library's border, and a
// program may be built by another compiler, or with another standard library, than the library was.
//
//   fastrnn::Result<fastrnn::Weights> file = fastrnn::Weights::open("amp.safetensors");
//   if (!file) return std::puts(file.error().message());
//   fastrnn::Result<fastrnn::Layer<float>> lstm = fastrnn::Layer<float>::load(*file, "lstm.");
//   if (!lstm) return std::puts(lstm.error().message());
//   fastrnn::Result<fastrnn::Stream<float>> stream = lstm->stream();
//   if (!stream) return std::puts(stream.error().message());
//   stream->step(x, y);  // in the audio callback
#pragma once

#include <fastrnn/fastrnn.h>
#include <fastrnn/streams.hpp>
#include <fastrnn/values.hpp>

#include <type_traits>

namespace fastrnn {
inline namespace v1 {

namespace detail {

template <class T>
constexpr int32_t dtype() noexcept {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "fastrnn: float or double");
  return sizeof(T) == 8 ? FASTRNN_FLOAT64 : FASTRNN_FLOAT32;
}

// call(error) -> status
template <class Call>
Result<void> checked(Call call) noexcept {
  Error error;
  if (call(error.raw()) == FASTRNN_OK) return {};
  return error;
}

// call(&handle, error) -> status
template <class Value, class Handle, class Call>
Result<Value> made(Call call) noexcept {
  Error error;
  Handle* handle = nullptr;
  if (call(&handle, error.raw()) == FASTRNN_OK) return Value(handle);
  return error;
}

}  // namespace detail

// Owners are empty when made without a value, and after a move: false. Their calls are then invalid_argument, sizes 0,
// and a config the default one.

// A safetensors file in memory. Any bytes give a value or an error.
class Weights {
 public:
  Weights() noexcept = default;
  explicit Weights(fastrnn_weights* handle) noexcept : handle_(handle) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }

  static Result<Weights> open(const char* path) noexcept {  // UTF-8
    return detail::made<Weights, fastrnn_weights>(
        [&](fastrnn_weights** out, fastrnn_error* e) { return fastrnn_weights_open(path, out, e); });
  }
  static Result<Weights> parse(const void* data, size_t bytes) noexcept {  // copies
    return detail::made<Weights, fastrnn_weights>(
        [&](fastrnn_weights** out, fastrnn_error* e) { return fastrnn_weights_parse(data, bytes, out, e); });
  }

  size_t count() const noexcept { return fastrnn_weights_count(handle()); }
  Result<Tensor> at(size_t index) const noexcept {
    Error error;
    Tensor tensor;
    if (fastrnn_weights_at(handle(), index, &tensor, error.raw()) == FASTRNN_OK) return tensor;
    return error;
  }
  Result<Tensor> find(const char* name) const noexcept {
    Error error;
    Tensor tensor;
    if (fastrnn_weights_find(handle(), name, &tensor, error.raw()) == FASTRNN_OK) return tensor;
    return error;
  }
  // The value of a key, or null.
  const char* metadata(const char* key) const noexcept { return fastrnn_weights_metadata(handle(), key); }
  // The recurrent layer that fastrnn wrote with this prefix.
  Result<Config> config(const char* prefix = "") const noexcept {
    Error error;
    fastrnn_config config;
    fastrnn_config_default(&config);
    if (fastrnn_weights_config(handle(), prefix, &config, error.raw()) == FASTRNN_OK) return detail::config_of(config);
    return error;
  }
  const fastrnn_weights* handle() const noexcept { return handle_.get(); }

 private:
  detail::Owner<fastrnn_weights, fastrnn_weights_free> handle_;
};

// What a forward pass keeps for backward.
class Tape {
 public:
  Tape() noexcept = default;
  explicit Tape(fastrnn_tape* handle) noexcept : handle_(handle) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }
  const fastrnn_tape* handle() const noexcept { return handle_.get(); }

 private:
  detail::Owner<fastrnn_tape, fastrnn_tape_free> handle_;
};

// A stack of recurrent layers. Const functions may run in several threads at once.
template <class T>
class Layer {
 public:
  Layer() noexcept = default;
  explicit Layer(fastrnn_layer* handle) noexcept : handle_(handle) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }

  // Its weights are missing: set or assign, then prepare.
  static Result<Layer> make(const Config& config) noexcept {
    const fastrnn_config c = {sizeof c,          int32_t(config.cell), detail::dtype<T>(),
                              config.input_size, config.hidden_size,   config.num_layers,
                              config.bias,       config.bidirectional, config.proj_size};
    return detail::made<Layer, fastrnn_layer>(
        [&](fastrnn_layer** out, fastrnn_error* e) { return fastrnn_layer_create(&c, out, e); });
  }
  // A layer that fastrnn wrote, ready to run.
  static Result<Layer> load(const Weights& weights, const char* prefix = "") noexcept {
    return detail::made<Layer, fastrnn_layer>([&](fastrnn_layer** out, fastrnn_error* e) {
      return fastrnn_layer_load(weights.handle(), prefix, detail::dtype<T>(), out, e);
    });
  }

  Config config() const noexcept {
    fastrnn_config c;
    fastrnn_config_default(&c);
    fastrnn_layer_config(handle(), &c);
    return detail::config_of(c);
  }
  size_t count() const noexcept { return fastrnn_layer_count(handle()); }
  Result<Tensor> at(size_t index) const noexcept {
    Error error;
    Tensor tensor;
    if (fastrnn_layer_at(handle(), index, &tensor, error.raw()) == FASTRNN_OK) return tensor;
    return error;
  }
  // One weight by torch's name, C order.
  Result<void> set(const char* name, const T* values, size_t count) noexcept {
    return detail::checked([&](fastrnn_error* e) { return fastrnn_layer_set(handle_.get(), name, values, count, e); });
  }
  Result<void> assign(const Weights& weights, const char* prefix = "") noexcept {
    return detail::checked(
        [&](fastrnn_error* e) { return fastrnn_layer_assign(handle_.get(), weights.handle(), prefix, e); });
  }
  Result<void> prepare(int32_t threads = 1) noexcept {
    return detail::checked([&](fastrnn_error* e) { return fastrnn_layer_prepare(handle_.get(), threads, e); });
  }

  Result<void> run(const Sequence<T>& sequence) const noexcept {
    const fastrnn_sequence s = sequence.raw();
    return detail::checked([&](fastrnn_error* e) { return fastrnn_layer_run(handle(), &s, e); });
  }
  Result<Tape> forward(const Sequence<T>& sequence) const noexcept {
    const fastrnn_sequence s = sequence.raw();
    return detail::made<Tape, fastrnn_tape>(
        [&](fastrnn_tape** out, fastrnn_error* e) { return fastrnn_layer_forward(handle(), &s, out, e); });
  }
  Result<void> backward(const Tape& tape, const Gradients<T>& gradients) const noexcept {
    const fastrnn_gradients g = gradients.raw();
    return detail::checked([&](fastrnn_error* e) { return fastrnn_layer_backward(handle(), tape.handle(), &g, e); });
  }
  Result<Stream<T>> stream(int64_t batch = 1, int32_t threads = 1) const noexcept {
    return detail::made<Stream<T>, fastrnn_stream>([&](fastrnn_stream** out, fastrnn_error* e) {
      return fastrnn_stream_create(handle(), batch, threads, out, e);
    });
  }
  Result<StreamPool<T>> pool(int64_t capacity, int32_t threads = 1) const noexcept {
    return detail::made<StreamPool<T>, fastrnn_pool>(
        [&](fastrnn_pool** out, fastrnn_error* e) { return fastrnn_pool_create(handle(), capacity, threads, out, e); });
  }
  const fastrnn_layer* handle() const noexcept { return handle_.get(); }

 private:
  detail::Owner<fastrnn_layer, fastrnn_layer_free> handle_;
};

// y = x W^T + b.
template <class T>
class Linear {
 public:
  Linear() noexcept = default;
  explicit Linear(fastrnn_linear* handle) noexcept : handle_(handle) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }

  static Result<Linear> make(int32_t in_features, int32_t out_features, bool bias = true) noexcept {
    return detail::made<Linear, fastrnn_linear>([&](fastrnn_linear** out, fastrnn_error* e) {
      return fastrnn_linear_create(in_features, out_features, bias, detail::dtype<T>(), out, e);
    });
  }
  static Result<Linear> load(const Weights& weights, const char* prefix = "") noexcept {
    return detail::made<Linear, fastrnn_linear>([&](fastrnn_linear** out, fastrnn_error* e) {
      return fastrnn_linear_load(weights.handle(), prefix, detail::dtype<T>(), out, e);
    });
  }

  int32_t in_features() const noexcept { return fastrnn_linear_in_features(handle()); }
  int32_t out_features() const noexcept { return fastrnn_linear_out_features(handle()); }
  Result<void> set(const T* weight, const T* bias) noexcept {
    return detail::checked([&](fastrnn_error* e) { return fastrnn_linear_set(handle_.get(), weight, bias, e); });
  }
  // x [N, I] to y [N, O].
  Result<void> run(const T* x, T* y, int64_t rows, int32_t threads = 1) const noexcept {
    return detail::checked([&](fastrnn_error* e) { return fastrnn_linear_run(handle(), x, y, rows, threads, e); });
  }
  // x [I] to y [O], real-time safe.
  Status step(const T* x, T* y) const FASTRNN_NONBLOCKING { return Status(fastrnn_linear_step(handle(), x, y)); }
  // `steps` of them, the rows so many elements apart, as Stream::process leaves them. x and y do not overlap.
  Status process(int64_t steps, const T* x, ptrdiff_t x_step, T* y, ptrdiff_t y_step) const FASTRNN_NONBLOCKING {
    return Status(fastrnn_linear_process(handle(), steps, x, x_step, y, y_step));
  }
  const fastrnn_linear* handle() const noexcept { return handle_.get(); }

 private:
  detail::Owner<fastrnn_linear, fastrnn_linear_free> handle_;
};

// A module and the prefix of its names: its own name and a '.', or "" for a module that is alone. With something to
// remember of it: fastrnn::Entry about[] = {{"sample_rate", "48000"}}.
struct Module : fastrnn_module {
  template <class T>
  Module(const char* name, const Layer<T>& module) noexcept
      : fastrnn_module{name, module.handle(), nullptr, nullptr, 0} {}
  template <class T>
  Module(const char* name, const Linear<T>& module) noexcept
      : fastrnn_module{name, nullptr, module.handle(), nullptr, 0} {}
  template <class Owner, size_t n>
  Module(const char* name, const Owner& module, const Entry (&about)[n]) noexcept : Module(name, module) {
    metadata = about, entries = n;
  }
  template <class Owner, size_t n>
  Module(const char*, const Owner&, Entry (&&)[n]) = delete;  // a braced list would be gone when it is read
};

// Any number of them: a std::vector<fastrnn_module> takes Modules.
inline Result<void> save(const char* path, const fastrnn_module* modules, size_t count) noexcept {
  return detail::checked([&](fastrnn_error* e) { return fastrnn_save(path, modules, count, e); });
}

template <size_t n>
Result<void> save(const char* path, const Module (&modules)[n]) noexcept {
  fastrnn_module raw[n];
  for (size_t i = 0; i < n; ++i) raw[i] = modules[i];
  return save(path, raw, n);
}

// The same file in memory, for Weights::parse.
inline Result<Bytes> serialize(const fastrnn_module* modules, size_t count) noexcept {
  Error error;
  size_t size = 0;
  if (fastrnn_serialize(modules, count, nullptr, 0, &size, error.raw()) != FASTRNN_OK) return error;
  Bytes bytes(size);
  if (!bytes.size()) return Error::out_of_memory();
  if (fastrnn_serialize(modules, count, bytes.data(), bytes.size(), &size, error.raw()) != FASTRNN_OK) return error;
  return bytes;
}

template <size_t n>
Result<Bytes> serialize(const Module (&modules)[n]) noexcept {
  fastrnn_module raw[n];
  for (size_t i = 0; i < n; ++i) raw[i] = modules[i];
  return serialize(raw, n);
}

}  // namespace v1
}  // namespace fastrnn
