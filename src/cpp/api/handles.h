// What is behind the opaque handles of fastrnn.h, and the way from an exception to an error value.
#pragma once

#include <fastrnn/fastrnn.h>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "file/safetensors.h"
#include "network/dense.h"
#include "network/network.h"
#include "pool.h"
#include "stream.h"
#include "system/limits.h"
#include "threads/guarded_mode.h"

namespace fastrnn {

// Thrown inside the library, never across its border.
struct Failure {
  fastrnn_status status;
  std::string message;
};

[[noreturn]] inline void refuse(std::string message) { throw Failure{FASTRNN_INVALID_ARGUMENT, std::move(message)}; }

template <class Pointer>
void need(Pointer* pointer, const char* name) {
  if (!pointer) refuse(std::string(name) + ": expected a pointer, got NULL");
}

inline int within(int64_t value, int64_t least, int64_t most, const char* name) {
  if (value >= least && value <= most) return int(value);
  refuse(std::string(name) + ": expected an integer from " + std::to_string(least) + " to " + std::to_string(most) +
         ", got " + std::to_string(value));
}

inline int check_threads(int64_t threads) { return within(threads, 1, kMaxThreads, "threads"); }

template <class T>
void need_aligned(const void* pointer, const char* name) {
  if (reinterpret_cast<uintptr_t>(pointer) % sizeof(T)) {
    refuse(std::string(name) + ": expected a pointer aligned to " + std::to_string(sizeof(T)) + " bytes");
  }
}

// Aligned, and not NULL: for functions that must not throw.
template <class T>
bool usable(const void* pointer) {
  return pointer && reinterpret_cast<uintptr_t>(pointer) % sizeof(T) == 0;
}

enum class Strides { good, negative, too_far, overlapping };

// Of a [T, B, n] array of the caller's, T and B not 0. What is written must not overlap itself. Those that lead nowhere
// become 0. Whole numbers alone, no division: a stream asks at each call.
inline Strides judge(ptrdiff_t& step, ptrdiff_t& row, int64_t steps, int64_t batch, int n, bool written) noexcept {
  if (steps == 1) step = 0;
  if (batch == 1) row = 0;
  if (step < 0 || row < 0) return Strides::negative;
  constexpr int64_t most = PTRDIFF_MAX / 16;  // so that the sum of two, of 8 bytes an element, does not overflow
  int64_t by_step, by_row;
  if (__builtin_mul_overflow(int64_t(step), steps - 1, &by_step) ||
      __builtin_mul_overflow(int64_t(row), batch - 1, &by_row) || by_step > most || by_row > most) {
    return Strides::too_far;
  }
  const bool apart = (steps == 1 || step >= by_row + n) && (batch == 1 || row >= n);
  const bool apart_by_row = (batch == 1 || row >= by_step + n) && (steps == 1 || step >= n);
  return !written || apart || apart_by_row ? Strides::good : Strides::overlapping;
}

fastrnn_status report(fastrnn_error* error, fastrnn_status status, const char* message) noexcept;
// For the exception that is being handled.
fastrnn_status report_current(fastrnn_error* error) noexcept;

// Also what is computed around the kernels, such as a plan's costs, is in their mode, and so raises no signal where the
// caller traps.
template <class Body>
fastrnn_status guarded(fastrnn_error* error, Body&& body) noexcept {
  const GuardedMode mode;
  try {
    body();
    return report(error, FASTRNN_OK, "");
  } catch (...) {
    return report_current(error);
  }
}

// `*out = made` when body returns a handle, NULL when it fails.
template <class Handle, class Body>
fastrnn_status making(Handle** out, fastrnn_error* error, Body&& body) noexcept {
  if (!out) return report(error, FASTRNN_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
  *out = nullptr;
  return guarded(error, [&] { *out = body().release(); });
}

struct Parameter {
  std::string name;
  int64_t shape[2];
  int rank;
  bool set = false;

  size_t count() const { return size_t(shape[0]) * (rank > 1 ? size_t(shape[1]) : 1); }
};

// The part of a layer that has a dtype.
template <class T>
struct Typed {
  Block values;                         // of all parameters
  std::vector<T*> parameters;           // into values
  std::shared_ptr<Network<T>> network;  // null before the first prepare; shared with streams and pools
};

constexpr const char* kDtypes[] = {"F32", "F64"};

}  // namespace fastrnn

// ------------------------------------------------------------------------------------------------- the opaque handles

struct fastrnn_weights {
  fastrnn::Safetensors file;
};

struct fastrnn_layer {
  fastrnn::Config config;
  std::vector<fastrnn::Parameter> parameters;
  std::variant<fastrnn::Typed<float>, fastrnn::Typed<double>> typed;
  uint64_t prepared = 0;  // a number of its own for each prepare, 0: not ready

  int dtype() const { return int(typed.index()); }
};

struct fastrnn_tape {
  uint64_t prepared;  // the layer's when it was made
  std::variant<std::unique_ptr<fastrnn::Tape<float>>, std::unique_ptr<fastrnn::Tape<double>>> tape;
};

struct fastrnn_stream {
  std::variant<std::unique_ptr<fastrnn::Stream<float>>, std::unique_ptr<fastrnn::Stream<double>>> typed;
};

struct fastrnn_pool {
  std::variant<std::unique_ptr<fastrnn::StreamPool<float>>, std::unique_ptr<fastrnn::StreamPool<double>>> typed;
};

namespace fastrnn {

template <class T>
struct TypedDense {
  std::vector<T> weight, bias;
  std::unique_ptr<Dense<T>> dense;
};

}  // namespace fastrnn

struct fastrnn_linear {
  int in_features, out_features;
  bool bias, ready = false;
  std::variant<fastrnn::TypedDense<float>, fastrnn::TypedDense<double>> typed;

  int dtype() const { return int(typed.index()); }
};

namespace fastrnn {

// What layers and dense layers share: a tensor of a file; one of this dtype and shape; the dtype it is read as.
const StoredTensor& stored(const Safetensors& file, const std::string& name);
const StoredTensor& stored(const Safetensors& file, const std::string& name, int dtype, const int64_t* shape, int rank);
int dtype_of(const StoredTensor& tensor);
// A field of a module that fastrnn wrote; null when the file has no metadata for it.
const std::string* field(const Safetensors& file, const std::string& prefix, const char* name);
int integer_field(const Safetensors& file, const std::string& prefix, const char* name, int least);  // to kMaxSize
bool boolean_field(const Safetensors& file, const std::string& prefix, const char* name);
// What a module is, "lstm" or "linear", in a file of a version that can be read.
const std::string& kind_of(const Safetensors& file, const std::string& prefix);

std::unique_ptr<fastrnn_layer> make_layer(const fastrnn_config& config);
void check_stored(const fastrnn_config& config, const Safetensors& file, const std::string& prefix);
void assign(fastrnn_layer& layer, const Safetensors& file, const std::string& prefix);
void prepare(fastrnn_layer& layer, int threads);
fastrnn_config config_of(const Safetensors& file, const std::string& prefix);
void copy_config(const fastrnn_config& from, fastrnn_config* to);
void copy_config(const Config& from, int dtype, fastrnn_config* to);
void need_ready(const fastrnn_layer& layer);
fastrnn_tensor view_of(const fastrnn_layer& layer, size_t index);

}  // namespace fastrnn
