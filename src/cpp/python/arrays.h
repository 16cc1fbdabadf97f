// Views of NumPy arrays for the bindings: checked, borrowed, never converted.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "file/text.h"
#include "python/refuse.h"
#include "tasks.h"

namespace fastrnn {

namespace py = pybind11;

inline std::string shape_text(const py::array& a) { return shape_text(a.shape(), size_t(a.ndim())); }

template <class T>
constexpr const char* dtype_name() {
  return std::is_integral_v<T> ? "int64" : sizeof(T) == 4 ? "float32" : "float64";
}

// hint: "; " and what to do, or "".
[[noreturn]] inline void bad_shape(const char* name, const std::string& expected, const py::array& got,
                                   const char* hint = "") {
  throw py::value_error(std::string(name) + ": expected shape " + expected + ", got " + shape_text(got) + hint);
}

inline void need_array(py::handle object, const char* name) {
  if (object.is_none()) throw py::type_error(std::string(name) + ": expected an array, got None");
}

// The array behind a handle, of type T exactly; TypeError otherwise.
template <class T>
py::array as_array(py::handle object, const char* name) {
  if (!py::isinstance<py::array>(object)) {
    refuse_type(std::string(name) + ": expected a NumPy array of " + dtype_name<T>(), object);
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!py::isinstance<py::array_t<T, 0>>(array)) {
    throw py::type_error(std::string(name) + ": expected dtype " + dtype_name<T>() + ", got " +
                         std::string(py::str(array.dtype())));
  }
  return array;
}

// visit(T{}) for the type of an array's elements; float, whose checks refuse them, where they are neither.
template <class Visit>
auto with_type(const py::array& array, Visit visit) {
  return py::isinstance<py::array_t<double, 0>>(array) ? visit(double{}) : visit(float{});
}

inline bool aligned(const py::array& a) { return (a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }

inline std::string strides_text(const py::array& a) {
  return "strides of " + shape_text(a.strides(), size_t(a.ndim())) + " bytes";
}

constexpr const char* kMisplaced = "at an address that is no multiple of its element's";

[[noreturn]] inline void bad_layout(const char* name, const py::array& got) {
  const bool gaps = !(got.flags() & py::array::c_style);
  throw py::value_error(std::string(name) + ": expected a C-contiguous aligned array, got one " +
                        (gaps ? "of shape " + shape_text(got) + " with " + strides_text(got) : kMisplaced));
}

inline void need_dense(const char* name, const py::array& a) {
  if (!(a.flags() & py::array::c_style) || !aligned(a)) bad_layout(name, a);
}

inline void need_writable(const char* name, const py::array& a) {
  if (!a.writeable()) throw py::value_error(std::string(name) + ": expected a writable array, got a read-only one");
}

// Data of a C-contiguous array of exactly this shape; null for None.
template <class T>
const T* contiguous(py::handle object, const char* name, std::initializer_list<ssize_t> shape) {
  if (object.is_none()) return nullptr;
  const py::array a = as_array<T>(object, name);
  if (size_t(a.ndim()) != shape.size() || !std::equal(shape.begin(), shape.end(), a.shape()))
    bad_shape(name, shape_text(shape.begin(), shape.size()), a);
  need_dense(name, a);
  return static_cast<const T*>(a.data());
}

template <class T>
T* writable(py::handle object, const char* name, std::initializer_list<ssize_t> shape) {
  const T* const data = contiguous<T>(object, name, shape);
  if (data) need_writable(name, py::reinterpret_borrow<py::array>(object));
  return const_cast<T*>(data);
}

// A [T, B, n] array with any non-negative strides in T and B and a unit inner stride.
template <class T>
Rows<const T> rows_of(py::handle object, const char* name, ssize_t steps, ssize_t batch, ssize_t n) {
  if (object.is_none()) return {nullptr, 0, 0};
  const py::array a = as_array<T>(object, name);
  const ssize_t shape[] = {steps, batch, n};
  if (a.ndim() != 3 || !std::equal(shape, shape + 3, a.shape())) bad_shape(name, shape_text(shape, 3), a);
  const auto* data = static_cast<const T*>(a.data());
  if (a.size() == 0) return {data, 0, 0};
  const ssize_t size = ssize_t(sizeof(T));
  ptrdiff_t step[2];
  for (int axis = 0; axis < 2; ++axis) {
    step[axis] = shape[axis] > 1 ? a.strides(axis) : 0;  // NumPy leaves anything in the stride of an axis of one
    if (step[axis] < 0 || step[axis] % size) {
      throw py::value_error(std::string(name) +
                            ": expected strides that are multiples of the element, not negative, got " +
                            strides_text(a));
    }
  }
  const bool gaps = n > 1 && a.strides(2) != size;
  if (gaps || !aligned(a)) {
    throw py::value_error(std::string(name) + ": expected a unit inner stride and aligned data, got " +
                          (gaps ? strides_text(a) : std::string("data ") + kMisplaced));
  }
  return {data, step[0] / size, step[1] / size};
}

template <class T>
Rows<T> writable_rows(py::handle object, const char* name, ssize_t steps, ssize_t batch, ssize_t n) {
  const Rows<const T> r = rows_of<T>(object, name, steps, batch, n);
  if (r.data) need_writable(name, py::reinterpret_borrow<py::array>(object));
  return {const_cast<T*>(r.data), r.step, r.row};
}

}  // namespace fastrnn
