// Errors that say what was expected and what came instead.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace fastrnn {

namespace py = pybind11;

// What Python calls an object's class, "list" or "ndarray": tp_name would say "numpy.ndarray".
inline std::string type_name(py::handle object) { return py::str(py::type::of(object).attr("__name__")); }

// TypeError: "out: expected a NumPy array, got list", all before the comma being `expected`.
[[noreturn]] inline void refuse_type(const std::string& expected, py::handle got) {
  throw py::type_error(expected + ", got " + type_name(got));
}

inline int within(int value, int least, int most, const char* name) {
  if (value >= least && value <= most) return value;
  throw py::value_error(std::string(name) + ": expected an integer from " + std::to_string(least) + " to " +
                        std::to_string(most) + ", got " + std::to_string(value));
}

}  // namespace fastrnn
