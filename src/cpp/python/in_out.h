// An array that is read, copied where it has to be, and one that a result is written into, never copied.
#pragma once

#include <algorithm>
#include <string>

#include "python/arrays.h"
#include "python/masked.h"
#include "python/plain.h"
#include "python/results.h"
#include "python/unlocked.h"

namespace fastrnn {

// An input by the package's policy for arguments: anything array-like, copied where it is strided; TypeError for what
// is no array or has another dtype. Most are read where they lie, and Python is not asked: ten steps of LSTM H32 take
// 2.7 us as a block, and took 3.7 with that; after a pause, which drives Python's code from the caches, 30 and 90
// (Zen 4).
template <class T>
py::array as_input(py::handle x, const char* name) {
  if (plain_array<T>(x)) return py::reinterpret_borrow<py::array>(x);
  const py::object module = called([] { return PyImport_ImportModule("fastrnn._arguments"); });
  const py::object function = module.attr("as_contiguous"), text = py::str(name), dtype = py::dtype::of<T>();
  PyObject* const given[] = {text.ptr(), x.ptr(), dtype.ptr()};
  return called([&] { return PyObject_Vectorcall(function.ptr(), given, 3, nullptr); });
}

// The array for a result, which is written where it lies; TypeError for anything else.
template <class T>
py::array as_output(py::handle object, const char* name) {
  py::array a = as_array<T>(object, name);
  if (is_plain_array(object)) return a;
  throw py::type_error(std::string(name) + ": expected a plain array, got a masked one");
}

inline bool overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
  const char *p = static_cast<const char*>(a), *q = static_cast<const char*>(b);
  return p < q + b_bytes && q < p + a_bytes;
}

// Where a result of this shape goes: the data of `out`, which must be an array apart from x, called `name`.
template <class T>
T* checked_output(py::handle out, const ssize_t* shape, size_t dims, const py::array& x, const char* name) {
  const py::array y = as_output<T>(out, "out");
  if (size_t(y.ndim()) != dims || !std::equal(shape, shape + dims, y.shape())) {
    bad_shape("out", shape_text(shape, dims), y);
  }
  need_writable("out", y);
  need_dense("out", y);
  T* const data = static_cast<T*>(const_cast<void*>(y.data()));
  if (overlap(x.data(), size_t(x.nbytes()), data, size_t(y.nbytes()))) {
    throw py::value_error("out: overlaps " + std::string(name) + " in memory; pass an array of its own");
  }
  return data;
}

// A result of this shape, `out` or, for None, a new one, and where it lies.
template <class T>
py::object result_or(py::handle out, const ArrayShape& shape, const py::array& x, const char* name, T*& data) {
  if (out.is_none()) return result_array(shape, data);
  data = checked_output<T>(out, shape.size, size_t(shape.dims), x, name);
  return py::reinterpret_borrow<py::object>(out);
}

}  // namespace fastrnn
