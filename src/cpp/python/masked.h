// Which arrays are what they seem.
#pragma once

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/numpy.h>

namespace fastrnn {

namespace py = pybind11;

// numpy.ma.MaskedArray, looked up once.
inline py::handle masked_arrays() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> found;
  return found
      .call_once_and_store_result(
          [] { return py::object(py::module_::import("numpy").attr("ma").attr("MaskedArray")); })
      .get_stored();
}

// An array whose values are what they seem. Of a subclass (memmap and others) that takes a look: a masked array hides
// some.
inline bool is_plain_array(py::handle object) {
  if (Py_TYPE(object.ptr()) == py::detail::npy_api::get().PyArray_Type_) return true;
  if (!py::isinstance<py::array>(object)) return false;
  return !py::isinstance(object, masked_arrays());
}

}  // namespace fastrnn
