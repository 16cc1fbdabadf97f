// The rows of one step, or of a block of them: what streams and pools take and give. For a step looks at array headers
// with borrowed handles and builds nothing but the result: this is the hottest path of the library.
#pragma once

#include <pybind11/gil_safe_call_once.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "python/arrays.h"
#include "python/unlocked.h"

namespace fastrnn {

inline std::string shape_of(ssize_t batch, ssize_t n) {
  return batch == 1 ? "[" + std::to_string(n) + "] or [1, " + std::to_string(n) + "]"
                    : "[" + std::to_string(batch) + ", " + std::to_string(n) + "]";
}

// numpy.ma.MaskedArray, looked up once.
inline py::handle masked_arrays() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> found;
  return found
      .call_once_and_store_result(
          [] { return py::object(py::module_::import("numpy").attr("ma").attr("MaskedArray")); })
      .get_stored();
}

// An array whose values are what they seem. Of a subclass (memmap
// and others) that takes a look: a masked array hides some.
inline bool is_plain_array(py::handle object) {
  if (Py_TYPE(object.ptr()) == py::detail::npy_api::get().PyArray_Type_) return true;
  if (!py::isinstance<py::array>(object)) return false;
  return !py::isinstance(object, masked_arrays());
}

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

// The array for a result, which is written where it lies; TypeError for anything else.
template <class T>
py::array as_output(py::handle object, const char* name) {
  py::array a = as_array<T>(object, name);
  if (is_plain_array(object)) return a;
  throw py::type_error(std::string(name) + ": expected a plain array, got a masked one");
}

// Says what is wrong with an array that step_rows refused.
template <class T>
[[noreturn]] void refuse(py::handle object, const char* name, ssize_t batch, ssize_t n, bool write) {
  const py::array a = write ? as_output<T>(object, name) : as_array<T>(object, name);
  const bool fits =
      (a.ndim() == 2 && a.shape(0) == batch && a.shape(1) == n) || (a.ndim() == 1 && batch == 1 && a.shape(0) == n);
  if (!fits) bad_shape(name, shape_of(batch, n), a);
  if (write) need_writable(name, a);
  bad_layout(name, a);
}

inline bool overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
  const char *p = static_cast<const char*>(a), *q = static_cast<const char*>(b);
  return p < q + b_bytes && q < p + a_bytes;
}

// An input that is not read where it lies, by the package's policy for arguments: anything array-like, copied where it
// is strided; TypeError for what is no array or has another dtype.
template <class T>
py::array as_input(py::handle x, const char* name) {
  const py::object module = called([] { return PyImport_ImportModule("fastrnn._arguments"); });
  const py::object function = module.attr("as_contiguous"), text = py::str(name), dtype = py::dtype::of<T>();
  PyObject* const given[] = {text.ptr(), x.ptr(), dtype.ptr()};
  return called([&] { return PyObject_Vectorcall(function.ptr(), given, 3, nullptr); });
}

// Checks x [B, n] and out [B, m] ([n] and [m] too where B is 1), makes out where there is none, calls run(x, out).
template <class T, class Run>
py::object step_rows_with(ssize_t batch, ssize_t n, ssize_t m, py::handle x, py::handle out, Run run) {
  py::object copy;
  const T* in = step_rows<T>(x, batch, n, false);
  if (!in) {
    copy = as_input<T>(x, "x");
    in = step_rows<T>(copy, batch, n, false);
    if (!in) refuse<T>(copy, "x", batch, n, false);
  }
  py::object result;
  if (out.is_none()) {
    const bool flat = py::detail::array_proxy((copy ? copy : x).ptr())->nd == 1;
    result = flat ? py::array_t<T>(m) : py::array_t<T>({batch, m});
  } else {
    result = py::reinterpret_borrow<py::object>(out);
  }
  T* const y = step_rows<T>(result, batch, m, true);
  if (!y) refuse<T>(result, "out", batch, m, true);
  if (overlap(in, size_t(batch * n) * sizeof(T), y, size_t(batch * m) * sizeof(T))) {
    throw py::value_error("out: overlaps x in memory; pass an array of its own");
  }
  run(in, y);
  return result;
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

// What step_rows_with does, for a block of steps: x [T, B, n] and out [T, B, m], or [T, n] and [T, m] where B is 1.
// `name` is what the caller calls x; run(T, x, out).
template <class T, class Run>
py::object block_with(ssize_t batch, ssize_t n, ssize_t m, const char* name, py::handle block, py::handle out,
                      Run run) {
  const py::array x = as_input<T>(block, name);
  const bool flat = x.ndim() == 2 && batch == 1;
  const std::string lead = batch == 1 ? "[T, " : "[T, " + std::to_string(batch) + ", ";
  if ((!flat && x.ndim() != 3) || x.shape(x.ndim() - 1) != n || (!flat && x.shape(1) != batch)) {
    bad_shape(name, lead + std::to_string(n) + "]", x);
  }
  const ssize_t steps = x.shape(0);
  std::vector<ssize_t> shape = flat ? std::vector<ssize_t>{steps, m} : std::vector<ssize_t>{steps, batch, m};
  py::object result = out.is_none() ? py::object(py::array_t<T>(shape)) : py::reinterpret_borrow<py::object>(out);
  T* const to = checked_output<T>(result, shape.data(), shape.size(), x, name);
  run(steps, Rows<const T>{static_cast<const T*>(x.data()), batch * n, n}, Rows<T>{to, batch * m, m});
  return result;
}

// Whoever uses an object that belongs to one thread at a time, for as long as it does. With the GIL only calls that
// release it can meet, and a plain store is enough: an exchange costs 20 cycles of a step.
class Claim {
 public:
  Claim(std::atomic<bool>& busy, const char* what) : busy_(busy) {
#if defined(Py_GIL_DISABLED)
    const bool taken = busy.exchange(true, std::memory_order_acquire);
#else
    const bool taken = busy.load(std::memory_order_relaxed);
    if (!taken) busy.store(true, std::memory_order_relaxed);
#endif
    if (taken) {
      throw std::runtime_error(std::string(what) + ": in use by another thread; it belongs to one thread at a time");
    }
  }
  ~Claim() { busy_.store(false, std::memory_order_release); }
  Claim(const Claim&) = delete;

 private:
  std::atomic<bool>& busy_;
};

// A state array [L, B, n] or, of a pool's stream, [L, n], copied where it is strided. One row's is taken as either.
template <class T>
py::object state_part(py::handle object, const char* name, std::initializer_list<ssize_t> shape) {
  if (object.is_none()) throw py::type_error(std::string(name) + ": expected an array, got None");
  py::array array = as_input<T>(object, name);
  const ssize_t dims = array.ndim(), layers = shape.begin()[0], n = shape.end()[-1];
  const bool one_row = shape.size() == 2 || shape.begin()[1] == 1;
  const bool as_one_row = dims == 2 || (dims == 3 && array.shape(1) == 1);
  if (one_row && as_one_row && array.shape(0) == layers && array.shape(dims - 1) == n) array = array.reshape(shape);
  contiguous<T>(array, name, shape);
  return array;
}

// write(h, c) with the arrays of a state: (h, c) of an LSTM, h otherwise, c then null.
template <class T, class Write>
void take_state(const py::object& state, bool pair, std::initializer_list<ssize_t> h_shape,
                std::initializer_list<ssize_t> c_shape, Write write) {
  if (!pair) {
    const py::object h = state_part<T>(state, "state", h_shape);
    return write(static_cast<const T*>(py::array(h).data()), static_cast<const T*>(nullptr));
  }
  if (!py::isinstance<py::tuple>(state) && !py::isinstance<py::list>(state)) {
    refuse_type("state: expected a pair (h, c)", state);
  }
  const auto parts = py::reinterpret_borrow<py::sequence>(state);
  if (parts.size() != 2)
    throw py::value_error("state: expected a pair (h, c), got " + std::to_string(parts.size()) + " arrays");
  const py::object h = state_part<T>(parts[0], "state[0]", h_shape), c = state_part<T>(parts[1], "state[1]", c_shape);
  write(static_cast<const T*>(py::array(h).data()), static_cast<const T*>(py::array(c).data()));
}

}  // namespace fastrnn
