// The plain values of fastrnn.hpp, which includes this file: statuses, errors, results, and what a call is told.
#pragma once

#include <fastrnn/fastrnn.h>

#include <memory>
#include <new>
#include <utility>

namespace fastrnn {
inline namespace v1 {

enum class [[nodiscard]] Status : fastrnn_status {
  ok = FASTRNN_OK,
  invalid_argument = FASTRNN_INVALID_ARGUMENT,
  out_of_memory = FASTRNN_OUT_OF_MEMORY,
  io = FASTRNN_IO,
  format = FASTRNN_FORMAT,
  not_ready = FASTRNN_NOT_READY,
  internal = FASTRNN_INTERNAL,
  full = FASTRNN_FULL,
};

class Error {
 public:
  Status status() const noexcept { return Status(raw_.status); }
  const char* message() const noexcept { return raw_.message; }
  fastrnn_error* raw() noexcept { return &raw_; }
  static Error out_of_memory() noexcept {
    Error error;
    error.raw_ = {FASTRNN_OUT_OF_MEMORY, "out of memory"};
    return error;
  }

 private:
  fastrnn_error raw_ = {FASTRNN_OK, {}};
};

// A value, or the error why there is none. Asking for what is not there is undefined, as with std::optional.
template <class Value>
class [[nodiscard]] Result {
 public:
  Result(Value&& value) noexcept : ok_(true) { new (&storage_.value) Value(std::move(value)); }
  Result(const Error& error) noexcept : ok_(false) { new (&storage_.error) Error(error); }
  Result(Result&& other) noexcept : ok_(other.ok_) {
    if (ok_) {
      new (&storage_.value) Value(std::move(other.storage_.value));
    } else {
      new (&storage_.error) Error(other.storage_.error);
    }
  }
  Result& operator=(Result&& other) noexcept {
    if (this != &other) {
      this->~Result();
      new (this) Result(std::move(other));
    }
    return *this;
  }
  ~Result() {
    if (ok_) storage_.value.~Value();
  }

  explicit operator bool() const noexcept { return ok_; }
  Value& operator*() & noexcept { return storage_.value; }
  const Value& operator*() const& noexcept { return storage_.value; }
  Value&& operator*() && noexcept { return std::move(storage_.value); }  // Layer<float> l = *std::move(result);
  Value* operator->() noexcept { return &storage_.value; }
  const Value* operator->() const noexcept { return &storage_.value; }
  const Error& error() const noexcept { return storage_.error; }

 private:
  union Storage {
    Storage() noexcept {}
    ~Storage() {}
    Value value;
    Error error;
  } storage_;
  bool ok_;
};

// Of a function that only can fail.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() noexcept = default;
  Result(const Error& error) noexcept : error_(error) {}
  explicit operator bool() const noexcept { return error_.status() == Status::ok; }
  const Error& error() const noexcept { return error_; }

 private:
  Error error_;
};

// The bytes of a file.
class Bytes {
 public:
  Bytes() noexcept = default;
  explicit Bytes(size_t size) noexcept : data_(new (std::nothrow) unsigned char[size]), size_(data_ ? size : 0) {}
  Bytes(Bytes&& other) noexcept : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  Bytes& operator=(Bytes&& other) noexcept {
    data_ = std::move(other.data_), size_ = std::exchange(other.size_, 0);
    return *this;
  }
  unsigned char* data() noexcept { return data_.get(); }
  const unsigned char* data() const noexcept { return data_.get(); }
  size_t size() const noexcept { return size_; }  // 0 without memory

 private:
  std::unique_ptr<unsigned char[]> data_;
  size_t size_ = 0;
};

enum class Cell : int32_t {
  rnn_tanh = FASTRNN_RNN_TANH,
  rnn_relu = FASTRNN_RNN_RELU,
  lstm = FASTRNN_LSTM,
  gru = FASTRNN_GRU,
};

enum class Dtype : int32_t { float32 = FASTRNN_FLOAT32, float64 = FASTRNN_FLOAT64 };

// torch's arguments. A layer's dtype is its template's; here it is told of a file, and set by Layer<T>::make.
struct Config {
  Cell cell = Cell::lstm;
  int32_t input_size = 1, hidden_size = 1, num_layers = 1;
  bool bias = true, bidirectional = false;
  int32_t proj_size = 0;
  Dtype dtype = Dtype::float32;

  int32_t output_size() const noexcept { return proj_size ? proj_size : hidden_size; }  // P, of one direction
  int32_t directions() const noexcept { return bidirectional ? 2 : 1; }
};

namespace detail {

inline Config config_of(const fastrnn_config& c) noexcept {
  return {Cell(c.cell), c.input_size,         c.hidden_size, c.num_layers,
          c.bias != 0,  c.bidirectional != 0, c.proj_size,   Dtype(c.dtype)};
}

template <auto release>
struct Release {
  template <class Handle>
  void operator()(Handle* handle) const noexcept {
    release(handle);
  }
};

template <class Handle, auto release>
using Owner = std::unique_ptr<Handle, Release<release>>;

}  // namespace detail

using Tensor = fastrnn_tensor;  // a named array
using Entry = fastrnn_entry;    // a key and a value of a file's metadata

// What a call of a whole sequence is told: fastrnn_sequence, with pointers of the layer's type. One row where nothing
// else is said.
template <class T>
struct Sequence {
  int64_t steps = 0, batch = 1;
  const int64_t* lengths = nullptr;
  const T* x = nullptr;
  ptrdiff_t x_step = 0, x_row = 0;
  T* y = nullptr;
  ptrdiff_t y_step = 0, y_row = 0;
  const T *h0 = nullptr, *c0 = nullptr;
  T *hn = nullptr, *cn = nullptr;
  int32_t threads = 1;

  fastrnn_sequence raw() const noexcept {
    return {
        sizeof(fastrnn_sequence), steps, batch, lengths, x, x_step, x_row, y, y_step, y_row, h0, c0, hn, cn, threads};
  }
};

// And fastrnn_gradients.
template <class T>
struct Gradients {
  const T* dy = nullptr;
  ptrdiff_t dy_step = 0, dy_row = 0;
  const T *dhn = nullptr, *dcn = nullptr;
  T* dx = nullptr;
  ptrdiff_t dx_step = 0, dx_row = 0;
  T *dh0 = nullptr, *dc0 = nullptr;
  T* const* weights = nullptr;
  int32_t threads = 1;
  double* step_norms = nullptr;

  fastrnn_gradients raw() const noexcept {
    const auto pointers = reinterpret_cast<void* const*>(weights);  // which the library reads as bytes
    return {sizeof(fastrnn_gradients),
            dy,
            dy_step,
            dy_row,
            dhn,
            dcn,
            dx,
            dx_step,
            dx_row,
            dh0,
            dc0,
            pointers,
            threads,
            step_norms};
  }
};

inline const char* version() noexcept { return fastrnn_version(); }
inline const char* isa() noexcept { return fastrnn_isa(); }  // null: FASTRNN_ISA names none that runs here
inline int32_t available_threads() noexcept { return fastrnn_available_threads(); }
inline const char* name(Status status) noexcept { return fastrnn_status_name(fastrnn_status(status)); }
// A program built with one ABI must not run with another: compare at start-up where that could happen.
inline bool abi_matches() noexcept { return fastrnn_abi() == FASTRNN_ABI; }

}  // namespace v1
}  // namespace fastrnn
