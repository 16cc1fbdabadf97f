// States of streams and pools.
#pragma once

#include <initializer_list>
#include <string>

#include "python/in_out.h"

namespace fastrnn {

// A state array [L, B, n] or, of a pool's stream, [L, n], copied where it is strided. One row's is taken as either.
template <class T>
py::object state_part(py::handle object, const char* name, std::initializer_list<ssize_t> shape) {
  need_array(object, name);
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
