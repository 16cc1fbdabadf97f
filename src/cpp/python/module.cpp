// The module fastrnn._core: view -> release the GIL -> call -> return.
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "network/dropout.h"
#include "python/arrays.h"
#include "python/bind.h"
#include "python/results.h"
#include "registry.h"
#include "system/limits.h"
#include "system/memory.h"
#include "tasks.h"
#include "threads/threads.h"

namespace fastrnn {
namespace {

py::dict build_info() {
  py::dict d;
  d["version"] = FASTRNN_VERSION;
#if defined(__clang__)
  d["compiler"] = "Clang " __clang_version__;
#else
  d["compiler"] = "GCC " __VERSION__;
#endif
  d["build_type"] = FASTRNN_BUILD_TYPE;
  d["openmp"] = has_openmp();
  d["isas_compiled"] = compiled_isas();
  py::list options;
  options.append(std::string("openmp=") + (has_openmp() ? "on" : "off"));
  options.append("contraction=off");
  d["options"] = options;
  return d;
}

// What Python has to know of a cell, from its file in cells/: gates of W and of U, vectors per unit on a tape, whether
// c travels beside h. The same on every instruction set.
py::dict cells() {
  py::dict d;
  for (int i = 0; i < kCells; ++i) {
    const CellKernels<float>& cell = current_backend().f32.cells[i];
    d[kCellNames[i]] = py::make_tuple(cell.gates, cell.saved, cell.has_cell_state);
  }
  return d;
}

template <class T>
py::array map(const Kernels<T>& kernels, const std::string& name, const py::array& x) {
  const auto function = name == "exp"       ? kernels.exp
                        : name == "sigmoid" ? kernels.sigmoid
                        : name == "tanh"    ? kernels.tanh
                                            : nullptr;
  if (!function) throw py::value_error("name: expected exp, sigmoid or tanh, got '" + name + "'");
  const ssize_t n = x.size();
  py::array_t<T> y(n);
  const T* const in = contiguous<T>(x, "x", {n});
  const KernelMode mode;
  function(in, y.mutable_data(), n);
  return y;
}

py::array vector_math(const std::string& name, const py::array& x) {
  return with_type(x, [&](auto zero) { return map(kernels_of<decltype(zero)>(current_backend()), name, x); });
}

py::array gated_tanh(const py::array& gate, const py::array& x) {
  return with_type(x, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const ssize_t n = x.size();
    py::array_t<T> y(n);
    const T* const in[] = {contiguous<T>(gate, "gate", {n}), contiguous<T>(x, "x", {n})};
    const KernelMode mode;
    kernels_of<T>(current_backend()).gated_tanh(in[0], in[1], y.mutable_data(), n);
    return y;
  });
}

py::object empty(const std::vector<ssize_t>& shape, const py::dtype& dtype) {
  if (shape.size() > size_t(ArrayShape::kMost))
    throw py::value_error("shape: expected at most 4 axes, got " + std::to_string(shape.size()));
  ArrayShape wanted = {int(shape.size()), {}};
  std::copy(shape.begin(), shape.end(), wanted.size);
  float* single = nullptr;
  double* twice = nullptr;
  return dtype.itemsize() == sizeof(double) ? result_array(wanted, twice) : result_array(wanted, single);
}

// What dropout multiplies the outputs of a layer with, n of them: [T, B, width].
template <class T>
py::array_t<T> mask_of(ssize_t n, double p, uint64_t key, int layer) {
  py::array_t<T> mask(n);
  std::fill_n(mask.mutable_data(), n, T(1));
  Dropout{p, key, layer}.part(mask.data(), mask.mutable_data(), 0, size_t(n));
  return mask;
}

py::array dropout_mask(ssize_t n, const py::dtype& dtype, double p, uint64_t key, int layer) {
  if (dtype.itemsize() == sizeof(double)) return mask_of<double>(n, p, key, layer);
  return mask_of<float>(n, p, key, layer);
}

}  // namespace
}  // namespace fastrnn

// Free-threaded Python turns the GIL on when it imports this, since nothing here
// says otherwise: Stream and StreamPool refuse a second thread by themselves, but
// leases of packed weights were never run without the GIL, so nothing is promised.
PYBIND11_MODULE(_core, m) {
  using namespace fastrnn;
  // Now, not at the first call: while pybind11 looks for NumPy's functions it lets go of the GIL, and a daemon thread
  // that wants it back when the interpreter ends takes the process along (1 of 40 that ended right then).
  py::detail::npy_api::get();
  m.attr("__version__") = FASTRNN_VERSION;
  m.attr("max_threads") = kMaxThreads;
  m.attr("max_size") = kMaxSize;
  m.attr("pad") = kPad;
  m.attr("align") = kAlign;
  m.attr("huge_block") = kHugeBlock;
  m.def("isas", &usable_isas);
  m.def("isa", [] { return current_backend().name; });
  m.def("set_isa", &set_isa);
  m.def("cells", &cells);
  m.def("build_info", &build_info);
  m.def("available_threads", &available_threads);
  m.def("empty", &empty);
  m.def("dropout_mask", &dropout_mask);
  // For tests alone.
  m.def("has_fma", [] { return current_backend().has_fma; });
  m.def("vector_math", &vector_math);
  m.def("gated_tanh", &gated_tanh);

  bind_network(m);
  bind_follower(m);
  bind_dense(m);
  bind_optim(m);
  bind_stream(m);
  bind_pool(m);
  bind_probe(m);
}
