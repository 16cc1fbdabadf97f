// Dense layers.
#include <algorithm>
#include <cstring>

#include "api/handles.h"
#include "file/text.h"
#include "registry.h"
#include "system/limits.h"

namespace fastrnn {
namespace {

std::unique_ptr<fastrnn_linear> make(int in_features, int out_features, bool bias, int dtype) {
  auto made = std::make_unique<fastrnn_linear>();
  made->in_features = within(in_features, 1, kMaxSize, "in_features");
  made->out_features = within(out_features, 1, kMaxSize, "out_features");
  made->bias = bias;
  if (double(in_features + kPad) * (out_features + kPad) * sizeof(double) > kAddressable / 32) throw std::bad_alloc();
  const auto allocate = [&](auto& typed) {
    using T = typename std::decay_t<decltype(typed.weight)>::value_type;
    typed.weight.resize(size_t(in_features) * size_t(out_features));
    typed.bias.resize(bias ? size_t(out_features) : 0);
    typed.dense = std::make_unique<Dense<T>>(current_backend(), in_features, out_features);
  };
  if (dtype) {
    allocate(made->typed.emplace<1>());
  } else {
    allocate(made->typed.emplace<0>());
  }
  return made;
}

// copy(0, to) writes the weight into a vector, copy(1, to) the bias; the caller's may be unaligned.
template <class Copy>
void set(fastrnn_linear& linear, Copy copy) {
  std::visit(
      [&](auto& typed) {
        copy(0, typed.weight);
        if (linear.bias) copy(1, typed.bias);
        typed.dense->pack(typed.weight.data(), linear.bias ? typed.bias.data() : nullptr);
      },
      linear.typed);
  linear.ready = true;
}

std::unique_ptr<fastrnn_linear> load(const Safetensors& file, const std::string& prefix, int dtype) {
  const std::string weight = prefix + "weight", bias = prefix + "bias";
  const StoredTensor& t = stored(file, weight);
  int64_t shape[2];
  bool has_bias;
  if (field(file, prefix, "cell")) {
    const std::string& kind = kind_of(file, prefix);
    if (kind != "linear") {
      throw Failure{FASTRNN_FORMAT,
                    "metadata: expected '" + prefix + "cell' to be linear, got '" + shown(kind, 32) + "'"};
    }
    shape[0] = integer_field(file, prefix, "out_features", 1);
    shape[1] = integer_field(file, prefix, "in_features", 1);
    has_bias = boolean_field(file, prefix, "bias");
  } else {
    const bool fits = t.shape.size() == 2 &&
                      std::all_of(t.shape.begin(), t.shape.end(), [](int64_t n) { return n >= 1 && n <= kMaxSize; });
    if (!fits) {
      throw Failure{FASTRNN_FORMAT,
                    weight + ": expected shape [out_features, in_features], each to " + std::to_string(kMaxSize)};
    }
    shape[0] = t.shape[0], shape[1] = t.shape[1];
    has_bias = file.find(bias) != nullptr;
  }
  const StoredTensor& w = stored(file, weight, dtype, shape, 2);
  const StoredTensor* const b = has_bias ? &stored(file, bias, dtype, shape, 1) : nullptr;
  auto made = make(int(shape[1]), int(shape[0]), has_bias, dtype);
  set(*made, [&](int i, auto& to) { file.copy(i ? *b : w, to.data()); });
  return made;
}

template <class T>
fastrnn_status step(const TypedDense<T>& typed, const void* x, void* y) noexcept {
  if (!usable<T>(x) || !usable<T>(y)) return FASTRNN_INVALID_ARGUMENT;
  typed.dense->step(static_cast<const T*>(x), static_cast<T*>(y));
  return FASTRNN_OK;
}

template <class T>
fastrnn_status process(const TypedDense<T>& typed, int64_t steps, Rows<const T> x, Rows<T> y) noexcept {
  if (steps == 0) return FASTRNN_OK;
  if (steps < 0 || !usable<T>(x.data) || !usable<T>(y.data)) return FASTRNN_INVALID_ARGUMENT;
  if (judge(x.step, x.row, steps, 1, typed.dense->input(), false) != Strides::good ||
      judge(y.step, y.row, steps, 1, typed.dense->output(), true) != Strides::good) {
    return FASTRNN_INVALID_ARGUMENT;
  }
  typed.dense->process(steps, x, y);
  return FASTRNN_OK;
}

}  // namespace
}  // namespace fastrnn

using namespace fastrnn;

fastrnn_status fastrnn_linear_create(int32_t in_features, int32_t out_features, int32_t bias, int32_t dtype,
                                     fastrnn_linear** out, fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    within(bias, 0, 1, "bias"), within(dtype, 0, 1, "dtype");
    return make(in_features, out_features, bias != 0, dtype);
  });
}

fastrnn_status fastrnn_linear_load(const fastrnn_weights* weights, const char* prefix, int32_t dtype,
                                   fastrnn_linear** out, fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    need(weights, "weights"), need(prefix, "prefix");
    return load(weights->file, prefix, within(dtype, 0, 1, "dtype"));
  });
}

void fastrnn_linear_free(fastrnn_linear* linear) noexcept { delete linear; }
int32_t fastrnn_linear_in_features(const fastrnn_linear* linear) noexcept { return linear ? linear->in_features : 0; }
int32_t fastrnn_linear_out_features(const fastrnn_linear* linear) noexcept { return linear ? linear->out_features : 0; }

fastrnn_status fastrnn_linear_set(fastrnn_linear* linear, const void* weight, const void* bias,
                                  fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(linear, "linear"), need(weight, "weight");
    if (linear->bias) need(bias, "bias");
    if (!linear->bias && bias) refuse("bias: expected NULL, the layer was made without");
    set(*linear, [&](int i, auto& to) { std::memcpy(to.data(), i ? bias : weight, to.size() * sizeof to[0]); });
  });
}

fastrnn_status fastrnn_linear_run(const fastrnn_linear* linear, const void* x, void* y, int64_t rows, int32_t threads,
                                  fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(linear, "linear");
    if (!linear->ready) throw Failure{FASTRNN_NOT_READY, "linear: its weights were never set"};
    const int n = within(rows, 0, kMaxDenseRows, "rows");
    check_threads(threads);
    if (n == 0) return;
    need(x, "x"), need(y, "y");
    std::visit(
        [&](const auto& typed) {
          using T = typename std::decay_t<decltype(typed.weight)>::value_type;
          need_aligned<T>(x, "x"), need_aligned<T>(y, "y");
          typed.dense->run(static_cast<const T*>(x), static_cast<T*>(y), n, threads);
        },
        linear->typed);
  });
}

fastrnn_status fastrnn_linear_step(const fastrnn_linear* linear, const void* x, void* y) FASTRNN_NONBLOCKING {
  if (!linear || !linear->ready) return linear ? FASTRNN_NOT_READY : FASTRNN_INVALID_ARGUMENT;
  if (auto* const typed = std::get_if<0>(&linear->typed)) return step(*typed, x, y);
  return step(*std::get_if<1>(&linear->typed), x, y);
}

fastrnn_status fastrnn_linear_process(const fastrnn_linear* linear, int64_t steps, const void* x, ptrdiff_t x_step,
                                      void* y, ptrdiff_t y_step) FASTRNN_NONBLOCKING {
  if (!linear || !linear->ready) return linear ? FASTRNN_NOT_READY : FASTRNN_INVALID_ARGUMENT;
  const auto rows = [&](const auto& typed, auto element) {
    using T = decltype(element);
    return process<T>(typed, steps, {static_cast<const T*>(x), x_step, 0}, {static_cast<T*>(y), y_step, 0});
  };
  if (auto* const typed = std::get_if<0>(&linear->typed)) return rows(*typed, float());
  return rows(*std::get_if<1>(&linear->typed), double());
}
