#include "network/dense.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>

#include "python/bind.h"
#include "python/checks.h"
#include "python/in_out.h"
#include "python/method.h"
#include "python/plain.h"
#include "python/results.h"
#include "python/unlocked.h"
#include "registry.h"
#include "system/limits.h"

namespace fastrnn {
namespace {

struct AnyDense : Zeroed {
  std::variant<std::unique_ptr<Dense<float>>, std::unique_ptr<Dense<double>>> dense;
  bool has_bias;
  py::object weight, bias;  // which `dense` reads until the next pack or take
};

AnyDense make_dense(const std::string& dtype, int input, int output, bool bias) {
  within(input, 1, kMaxSize, "in_features");
  within(output, 1, kMaxSize, "out_features");
  return with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    return AnyDense{{}, std::make_unique<Dense<T>>(current_backend(), input, output), bias, py::none(), py::none()};
  });
}

// Rows of an [N, n] array.
int rows_in(py::handle object, const char* name) {
  if (!py::isinstance<py::array>(object)) refuse_type(std::string(name) + ": expected a NumPy array", object);
  const auto a = py::reinterpret_borrow<py::array>(object);
  if (a.ndim() != 2 || a.shape(0) > kMaxDenseRows) bad_shape(name, "[N, n]", a);
  return int(a.shape(0));
}

// use(dense, weight, bias) of arrays that are kept if it is true.
template <class Use>
bool with_weights(AnyDense& any, const py::object& weight, const py::object& bias, Use use) {
  const bool used = visit_made(any.dense, "dense", [&](const auto& dense) {
    using T = element_of<decltype(dense)>;
    need_array(weight, "weight");
    if (any.has_bias) {
      need_array(bias, "bias");
    } else if (!bias.is_none()) {
      refuse_type("bias: expected None", bias);
    }
    const T* const w = contiguous<T>(weight, "weight", {dense->output(), dense->input()});
    return use(*dense, w, contiguous<T>(bias, "bias", {dense->output()}));
  });
  if (used) any.weight = weight, any.bias = bias;
  return used;
}

void pack_dense(AnyDense& any, const py::object& weight, const py::object& bias) {
  with_weights(any, weight, bias, [](auto& dense, auto w, auto b) {
    const Unlocked unlocked;
    dense.pack(w, b);
    return true;
  });
}

bool take_dense(AnyDense& any, const py::object& weight, const py::object& bias, int64_t rows) {
  return with_weights(any, weight, bias, [&](auto& dense, auto w, auto b) { return dense.take(w, b, rows); });
}

void check_packed(const AnyDense& any) {
  need_made(bool(any.weight), "dense");
  if (any.weight.is_none()) throw py::value_error("dense: pack() was never called");
}

void run_dense(const AnyDense& any, py::object x, py::object y, int threads) {
  check_packed(any);
  const int rows = rows_in(x, "x");
  std::visit(
      [&](const auto& dense) {
        using T = element_of<decltype(dense)>;
        const T* const in = contiguous<T>(x, "x", {rows, dense->input()});
        T* const out = writable<T>(y, "y", {rows, dense->output()});
        need_array(y, "y");
        const int n = threads_of(threads);
        const Unlocked unlocked;
        dense->run(in, out, rows, n);
      },
      any.dense);
}

template <class T>
void run_rows(const Dense<T>& dense, const void* x, T* y, ssize_t rows, int threads) {
  const Unlocked unlocked;
  dense.run(static_cast<const T*>(x), y, int(rows), threads);
}

ssize_t product_of(const ssize_t* sizes, ssize_t count) {
  return std::accumulate(sizes, sizes + count, ssize_t(1), std::multiplies<>());
}

// y [..., O] of an array x [..., I] that needs no second look, into `out` where it needs none either; null for others.
template <class T>
py::object call_plain(const Dense<T>& dense, py::handle input, py::handle out, int threads) {
  const PlainArray* const x = plain_array<T>(input);
  if (!x || x->nd < 1 || x->nd > ArrayShape::kMost || x->dimensions[x->nd - 1] != dense.input()) return {};
  ArrayShape shape = {x->nd, {}};
  std::copy_n(x->dimensions, x->nd, shape.size);
  shape.size[x->nd - 1] = dense.output();
  const ssize_t rows = product_of(shape.size, x->nd - 1);
  if (rows < 1 || rows > kMaxDenseRows) return {};
  T* y = nullptr;
  py::object result;
  if (out.is_none()) {
    result = result_array(shape, y);
  } else {
    const PlainArray* const given = plain_array<T>(out);
    if (!given || !(shape == *given) || !(given->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) return {};
    y = reinterpret_cast<T*>(given->data);
    const size_t row_bytes[] = {size_t(dense.input()) * sizeof(T), size_t(dense.output()) * sizeof(T)};
    if (overlap(x->data, size_t(rows) * row_bytes[0], y, size_t(rows) * row_bytes[1])) return {};
    result = py::reinterpret_borrow<py::object>(out);
  }
  run_rows(dense, x->data, y, rows, threads);
  return result;
}

// The same of anything that can be read as such an array.
template <class T>
py::object call_checked(const Dense<T>& dense, py::handle input, py::handle out, int threads) {
  const py::array x = as_input<T>(input, "x");
  const ssize_t dims = x.ndim();
  const std::string width = std::to_string(dense.input());
  if (dims == 0 || x.shape(dims - 1) != dense.input()) {
    bad_shape("x", "[..., " + width + "] (in_features=" + width + ")", x);
  }
  if (py::object y = call_plain(dense, x, out, threads)) return y;
  std::vector<ssize_t> shape(x.shape(), x.shape() + dims);
  shape.back() = dense.output();
  const ssize_t rows = product_of(shape.data(), dims - 1);
  if (rows > kMaxDenseRows)
    bad_shape("x", "[..., " + width + "] of at most " + std::to_string(kMaxDenseRows) + " rows", x);
  py::object result = out.is_none() ? py::object(py::array_t<T>(shape)) : py::reinterpret_borrow<py::object>(out);
  run_rows(dense, x.data(), checked_output<T>(result, shape.data(), shape.size(), x, "x"), rows, threads);
  return result;
}

constexpr Signature<3> kDenseCall = {"call", {"x", "threads", "out"}, 2};

py::object call_dense(AnyDense& any, const Arguments<3>& a) {
  check_packed(any);
  const int threads = threads_of(a[1].cast<int>());
  return std::visit(
      [&](const auto& dense) {
        py::object y = call_plain(*dense, a[0], a[2], threads);
        return y ? y : call_checked(*dense, a[0], a[2], threads);
      },
      any.dense);
}

void backward_dense(const AnyDense& any, py::object x, py::object dy, py::object dx, py::object dweight,
                    py::object dbias, int threads) {
  check_packed(any);
  const int rows = rows_in(x, "x");
  std::visit(
      [&](const auto& dense) {
        using T = element_of<decltype(dense)>;
        const int input = dense->input(), output = dense->output();
        const T* const in = contiguous<T>(x, "x", {rows, input});
        const T* const up = contiguous<T>(dy, "dy", {rows, output});
        T* const to_x = writable<T>(dx, "dx", {rows, input});
        T* const to_w = writable<T>(dweight, "dweight", {output, input});
        T* const to_b = writable<T>(dbias, "dbias", {output});
        need_array(dy, "dy"), need_array(dweight, "dweight");
        const int n = threads_of(threads);
        const Unlocked unlocked;
        dense->backward(in, up, to_x, to_w, to_b, rows, n);
      },
      any.dense);
}

}  // namespace

void bind_dense(py::module_& m) {
  py::class_<AnyDense> dense(m, "Dense");
  dense.def(py::init(&make_dense))
      .def("pack", &pack_dense)
      .def("take", &take_dense)
      .def("run", &run_dense)
      .def("backward", &backward_dense);
  define_method<AnyDense, kDenseCall, &call_dense>(dense, "Return y [..., O] of x [..., I].");
}

}  // namespace fastrnn
