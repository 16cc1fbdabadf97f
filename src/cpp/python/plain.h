// Arrays that need no second look, given and made: what short calls are bound with.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>

namespace fastrnn {

namespace py = pybind11;

using PlainArray = py::detail::PyArray_Proxy;

// The array behind a handle, if it is no subclass, of T, aligned and without gaps.
template <class T>
const PlainArray* plain_array(py::handle object) {
  const auto& numpy = py::detail::npy_api::get();
  if (Py_TYPE(object.ptr()) != numpy.PyArray_Type_) return nullptr;
  constexpr int dense = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const PlainArray* const array = py::detail::array_proxy(object.ptr());
  if ((array->flags & dense) != dense) return nullptr;
  return numpy.PyArray_EquivTypes_(array->descr, py::dtype::of<T>().ptr()) ? array : nullptr;
}

struct ArrayShape {
  static constexpr int kMost = 4;
  int dims;
  ssize_t size[kMost];

  bool operator==(const PlainArray& array) const {
    return array.nd == dims && std::equal(size, size + dims, array.dimensions);
  }
};

// An array whose values are not set, and where they lie.
template <class T>
py::object fresh_array(const ArrayShape& shape, T*& data) {
  const auto& numpy = py::detail::npy_api::get();
  auto array = py::reinterpret_steal<py::object>(numpy.PyArray_NewFromDescr_(
      numpy.PyArray_Type_, py::dtype::of<T>().release().ptr(), shape.dims, shape.size, nullptr, nullptr, 0, nullptr));
  if (!array) throw py::error_already_set();
  data = reinterpret_cast<T*>(py::detail::array_proxy(array.ptr())->data);
  return array;
}

}  // namespace fastrnn
