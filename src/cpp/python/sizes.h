// What streams and pools tell of their network, without which a stream that was sent cannot be fed.
#pragma once

#include <pybind11/numpy.h>

#include "python/bind.h"

namespace fastrnn {

namespace py = pybind11;

template <class Any>
void define_sizes(py::class_<Any>& owner) {
  const auto size = [&](const char* name, int (*get)(const Config&), const char* doc) {
    owner.def_property_readonly(name, [=](const Any& any) { return get(check_made(any).network->config()); }, doc);
  };
  size("input_size", [](const Config& c) { return c.input; }, "I: how many features x has.");
  size(
      "output_size", [](const Config& c) { return c.output(); },
      "P: how many features y has, the layer's proj_size, or hidden_size without one.");
  size("num_layers", [](const Config& c) { return c.layers; }, "L: how many layers the state is of.");
  owner.def_property_readonly(
      "dtype", [](const Any& any) { return py::dtype(check_made(any).network->dtype()); },
      "NumPy dtype of x, y and the state, float32 or float64.");
  owner.def_property_readonly("_network", [](const Any& any) { return check_made(any).network; });
}

}  // namespace fastrnn
