// The rows of one step, or of a block of them: what streams and pools take and give. For a step looks at array headers
// with borrowed handles and builds nothing but the result: this is the hottest path of the library.
#pragma once

#include <string>

#include "python/in_out.h"

namespace fastrnn {

inline std::string shape_of(ssize_t batch, ssize_t n) {
  return batch == 1 ? "[" + std::to_string(n) + "] or [1, " + std::to_string(n) + "]"
                    : "[" + std::to_string(batch) + ", " + std::to_string(n) + "]";
}

// [.., n] rows of a step: [n] for one row, or [B, n]; C-contiguous. Returns null when it is something else.
template <class T>
T* step_rows(py::handle object, ssize_t batch, ssize_t n, bool write) {
  if (!is_plain_array(object)) return nullptr;
  const auto* proxy = py::detail::array_proxy(object.ptr());
  constexpr int flags = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((proxy->flags & flags) != flags || (write && !(proxy->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)))
    return nullptr;
  const bool fits = (proxy->nd == 2 && proxy->dimensions[0] == batch && proxy->dimensions[1] == n) ||
                    (proxy->nd == 1 && batch == 1 && proxy->dimensions[0] == n);
  if (!fits || !py::isinstance<py::array_t<T, 0>>(object)) return nullptr;
  return reinterpret_cast<T*>(proxy->data);
}

// Says what is wrong with an array that step_rows refused.
template <class T>
[[noreturn]] void refuse_rows(py::handle object, const char* name, ssize_t batch, ssize_t n, bool write) {
  const py::array a = write ? as_output<T>(object, name) : as_array<T>(object, name);
  const bool fits =
      (a.ndim() == 2 && a.shape(0) == batch && a.shape(1) == n) || (a.ndim() == 1 && batch == 1 && a.shape(0) == n);
  if (!fits) bad_shape(name, shape_of(batch, n), a);
  if (write) need_writable(name, a);
  bad_layout(name, a);
}

// Checks x [B, n] and out [B, m] ([n] and [m] too where B is 1), makes out where there is none, calls run(x, out).
template <class T, class Run>
py::object step_rows_with(ssize_t batch, ssize_t n, ssize_t m, py::handle x, py::handle out, Run run) {
  py::object copy;
  const T* in = step_rows<T>(x, batch, n, false);
  if (!in) {
    copy = as_input<T>(x, "x");
    in = step_rows<T>(copy, batch, n, false);
    if (!in) refuse_rows<T>(copy, "x", batch, n, false);
  }
  py::object result;
  T* y;
  if (out.is_none()) {
    const bool flat = py::detail::array_proxy((copy ? copy : x).ptr())->nd == 1;
    result = fresh_array(flat ? ArrayShape{1, {m}} : ArrayShape{2, {batch, m}}, y);
  } else {
    y = step_rows<T>(out, batch, m, true);
    if (!y) refuse_rows<T>(out, "out", batch, m, true);
    result = py::reinterpret_borrow<py::object>(out);
  }
  if (overlap(in, size_t(batch * n) * sizeof(T), y, size_t(batch * m) * sizeof(T))) {
    throw py::value_error("out: overlaps x in memory; pass an array of its own");
  }
  run(in, y);
  return result;
}

// What step_rows_with does, for a block of steps: x [T, B, n] and out [T, B, m], or [T, n] and [T, m] where B is 1.
// `name` is what the caller calls x; run(T, x, out).
template <class T, class Run>
py::object block_with(ssize_t batch, ssize_t n, ssize_t m, const char* name, py::handle block, py::handle out,
                      Run run) {
  age_results();
  const py::array x = as_input<T>(block, name);
  const bool flat = x.ndim() == 2 && batch == 1;
  if ((!flat && x.ndim() != 3) || x.shape(x.ndim() - 1) != n || (!flat && x.shape(1) != batch)) {
    const std::string lead = batch == 1 ? "[T, " : "[T, " + std::to_string(batch) + ", ";
    bad_shape(name, lead + std::to_string(n) + "]", x);
  }
  const ssize_t steps = x.shape(0);
  const ArrayShape shape = flat ? ArrayShape{2, {steps, m}} : ArrayShape{3, {steps, batch, m}};
  T* to;
  py::object result = result_or<T>(out, shape, x, name, to);
  run(steps, Rows<const T>{static_cast<const T*>(x.data()), batch * n, n}, Rows<T>{to, batch * m, m});
  return result;
}

}  // namespace fastrnn
