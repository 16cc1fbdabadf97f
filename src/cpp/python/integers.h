// Arrays of integers: rows of a stream, ids of a pool.
#pragma once

#include <cstdint>
#include <string>

#include "python/masked.h"
#include "python/refuse.h"

namespace fastrnn {

// What came instead of integers, read as `a`.
inline std::string no_integers(py::handle object, const char* name, const py::array& a) {
  const std::string dtype = py::str(a.dtype()), type = type_name(object);
  if (py::isinstance<py::array>(object)) return "dtype " + dtype;
  if (a.ndim() > 0) return type + " of " + dtype;
  const bool iterable = a.dtype().kind() == 'O' && py::hasattr(object, "__iter__");  // NumPy takes no set, no view
  return type + (iterable ? "; try list(" + std::string(name) + ")" : "");
}

// An array of integers of any dtype; expected: what, with the argument's name.
inline py::array integers(py::handle object, const char* name, const std::string& expected) {
  if (py::isinstance<py::array>(object) && !is_plain_array(object)) {
    throw py::type_error(std::string(name) + ": expected a plain array, got a masked one; use " + name +
                         ".filled(...)");
  }
  py::array a = py::array::ensure(object);
  if (!a) {
    PyErr_Clear();
    refuse_type(expected, object);
  }
  const char kind = a.dtype().kind();
  if (kind != 'i' && kind != 'u' && kind != 'b' && a.size() > 0)
    throw py::type_error(expected + ", got " + no_integers(object, name, a));
  return a;
}

// Their values; ValueError for one that no int64 holds, which a cast would make negative.
inline py::array_t<int64_t> as_int64(const py::array& a, const std::string& expected) {
  if (a.dtype().kind() == 'u') {
    const auto wide = py::array_t<uint64_t, py::array::c_style | py::array::forcecast>(a);
    for (ssize_t i = 0; i < wide.size(); ++i) {
      if (wide.data()[i] <= uint64_t(INT64_MAX)) continue;
      throw py::value_error(expected + ", got " + std::to_string(wide.data()[i]) + " at position " + std::to_string(i));
    }
  }
  return py::array_t<int64_t, py::array::c_style | py::array::forcecast>(a);
}

}  // namespace fastrnn
