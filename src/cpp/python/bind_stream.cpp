// fastrnn.Stream. step() is the hottest call of the library: it looks at array headers with borrowed handles and builds
// nothing but the result.
#include "python/arrays.h"
#include "python/bind.h"
#include "stream.h"

namespace fastrnn {
namespace {

using AnyStream = std::variant<std::unique_ptr<Stream<float>>, std::unique_ptr<Stream<double>>>;

template <class T>
const Config& config_of(const Stream<T>& s) {
  return s.network().config();
}

std::string shape_of(ssize_t batch, ssize_t n) {
  return batch == 1 ? "[" + std::to_string(n) + "] or [1, " + std::to_string(n) + "]"
                    : "[" + std::to_string(batch) + ", " + std::to_string(n) + "]";
}

// [.., n] rows of a step: [n] for one row, or [B, n]; C-contiguous. Returns null when it is something else.
template <class T>
T* step_rows(py::handle object, ssize_t batch, ssize_t n, bool write) {
  if (!py::isinstance<py::array>(object)) return nullptr;
  const auto* proxy = py::detail::array_proxy(object.ptr());
  constexpr int flags = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((proxy->flags & flags) != flags || (write && !(proxy->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)))
    return nullptr;
  const bool fits = (proxy->nd == 2 && proxy->dimensions[0] == batch && proxy->dimensions[1] == n) ||
                    (proxy->nd == 1 && batch == 1 && proxy->dimensions[0] == n);
  if (!fits || !py::isinstance<py::array_t<T, 0>>(object)) return nullptr;
  return reinterpret_cast<T*>(proxy->data);
}

// Says what is wrong with an array that step_rows refused.
template <class T>
[[noreturn]] void refuse(py::handle object, const char* name, ssize_t batch, ssize_t n, bool write) {
  const py::array a = as_array<T>(object, name);
  const bool fits =
      (a.ndim() == 2 && a.shape(0) == batch && a.shape(1) == n) || (a.ndim() == 1 && batch == 1 && a.shape(0) == n);
  if (!fits) bad_shape(name, shape_of(batch, n), a);
  if (write && !a.writeable())
    throw py::value_error(std::string(name) + ": expected a writable array, got a read-only one");
  throw py::value_error(std::string(name) + ": expected a C-contiguous aligned array");
}

bool overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
  const char *p = static_cast<const char*>(a), *q = static_cast<const char*>(b);
  return p < q + b_bytes && q < p + a_bytes;
}

// The input of a step, copied into shape when it is strided; anything array-like is looked at once.
template <class T>
py::object step_input(py::handle x) {
  py::object array = py::reinterpret_borrow<py::object>(x);
  if (!py::isinstance<py::array>(x)) {
    if (!py::hasattr(x, "__array__") && !py::hasattr(x, "__dlpack__")) return array;
    array = py::module_::import("numpy").attr("asarray")(x);
  }
  if (!py::isinstance<py::array_t<T, 0>>(array)) return array;
  return py::module_::import("numpy").attr("require")(array, py::none(), "CA");
}

template <class T>
py::object step(Stream<T>& s, py::handle x, py::handle out) {
  const Config& c = config_of(s);
  const ssize_t batch = s.batch();
  py::object copy;
  const T* in = step_rows<T>(x, batch, c.input, false);
  if (!in) {
    copy = step_input<T>(x);
    in = step_rows<T>(copy, batch, c.input, false);
    if (!in) refuse<T>(copy, "x", batch, c.input, false);
  }
  py::object result;
  if (out.is_none()) {
    const bool flat = py::detail::array_proxy((copy ? copy : x).ptr())->nd == 1;
    result = flat ? py::array_t<T>(c.output()) : py::array_t<T>({batch, ssize_t(c.output())});
  } else {
    result = py::reinterpret_borrow<py::object>(out);
  }
  T* const y = step_rows<T>(result, batch, c.output(), true);
  if (!y) refuse<T>(result, "out", batch, c.output(), true);
  if (overlap(in, size_t(batch) * size_t(c.input) * sizeof(T), y, size_t(batch) * size_t(c.output()) * sizeof(T))) {
    throw py::value_error("out: overlaps x in memory; pass an array of its own");
  }
  s.step(in, y);
  return result;
}

template <class T>
py::object process(Stream<T>& s, py::object block, py::object out) {
  const Config& c = config_of(s);
  const ssize_t batch = s.batch();
  block = step_input<T>(block);
  const py::array x = as_array<T>(block, "block");
  const bool flat = x.ndim() == 2 && batch == 1;
  const std::string lead = batch == 1 ? "[T, " : "[T, " + std::to_string(batch) + ", ";
  if ((!flat && x.ndim() != 3) || x.shape(x.ndim() - 1) != c.input || (!flat && x.shape(1) != batch)) {
    bad_shape("block", lead + std::to_string(c.input) + "]", x);
  }
  const ssize_t steps = x.shape(0), n = c.output();
  std::vector<ssize_t> shape = flat ? std::vector<ssize_t>{steps, n} : std::vector<ssize_t>{steps, batch, n};
  py::object result = out.is_none() ? py::object(py::array_t<T>(shape)) : out;
  const py::array y = as_array<T>(result, "out");
  if (y.ndim() != x.ndim() || !std::equal(shape.begin(), shape.end(), y.shape())) {
    bad_shape("out", shape_text(shape.data(), shape.size()), y);
  }
  if (!y.writeable()) throw py::value_error("out: expected a writable array, got a read-only one");
  if (!(y.flags() & py::array::c_style) || !aligned<T>(y))
    throw py::value_error("out: expected a C-contiguous aligned array");
  T* const to = static_cast<T*>(const_cast<void*>(y.data()));
  const T* const from = static_cast<const T*>(x.data());
  if (overlap(from, size_t(x.nbytes()), to, size_t(y.nbytes()))) {
    throw py::value_error("out: overlaps block in memory; pass an array of its own");
  }
  const py::gil_scoped_release release;
  s.process(steps, {from, batch * c.input, c.input}, {to, batch * n, n});
  return result;
}

// rows: None, a bool mask [B], or integer indices.
template <class T>
void reset(Stream<T>& s, const py::object& rows) {
  if (rows.is_none()) return s.reset();
  py::array a = py::array::ensure(rows);
  if (!a) throw py::type_error("rows: expected a bool mask or integer indices");
  const ssize_t batch = s.batch();
  const char kind = a.dtype().kind();
  if (kind == 'b') {
    if (a.ndim() != 1 || a.shape(0) != batch) bad_shape("rows", "[" + std::to_string(batch) + "]", a);
    const auto mask = py::array_t<bool, py::array::c_style | py::array::forcecast>(a);
    for (ssize_t i = 0; i < batch; ++i) {
      if (mask.at(i)) s.reset(int(i));
    }
    return;
  }
  if ((kind != 'i' && kind != 'u') && a.size() > 0)
    throw py::type_error("rows: expected a bool mask or integer indices, got dtype " + std::string(py::str(a.dtype())));
  const auto flat = py::array_t<int64_t, py::array::c_style | py::array::forcecast>(a.reshape({-1}));
  const int64_t* const index = flat.data();
  for (ssize_t i = 0; i < flat.size(); ++i) {
    if (index[i] >= 0 && index[i] < batch) continue;
    throw py::value_error("rows: expected indices from 0 to " + std::to_string(batch - 1) + ", got " +
                          std::to_string(index[i]));
  }
  for (ssize_t i = 0; i < flat.size(); ++i) s.reset(int(index[i]));
}

template <class T>
py::object get_state(const Stream<T>& s) {
  const Config& c = config_of(s);
  py::array_t<T> h({ssize_t(c.layers), ssize_t(s.batch()), ssize_t(c.output())});
  if (!s.network().cell().has_cell_state) {
    s.read_state(h.mutable_data(), nullptr);
    return h;
  }
  py::array_t<T> cell({ssize_t(c.layers), ssize_t(s.batch()), ssize_t(c.hidden)});
  s.read_state(h.mutable_data(), cell.mutable_data());
  return py::make_tuple(h, cell);
}

template <class T>
void set_state(Stream<T>& s, const py::object& state) {
  const Config& c = config_of(s);
  const auto part = [&](py::handle array, const char* name, ssize_t n) {
    if (array.is_none()) throw py::type_error(std::string(name) + ": expected a NumPy array, got None");
    const py::object compact = step_input<T>(array);
    contiguous<T>(compact, name, {ssize_t(c.layers), ssize_t(s.batch()), n});
    return compact;
  };
  if (!s.network().cell().has_cell_state) {
    const py::object h = part(state, "state", c.output());
    return s.write_state(static_cast<const T*>(py::array(h).data()), nullptr);
  }
  if (!py::isinstance<py::tuple>(state) && !py::isinstance<py::list>(state)) {
    throw py::type_error("state: expected a pair (h, c), got " +
                         std::string(py::str(py::type::of(state).attr("__name__"))));
  }
  const auto pair = py::reinterpret_borrow<py::sequence>(state);
  if (pair.size() != 2)
    throw py::value_error("state: expected a pair (h, c), got " + std::to_string(pair.size()) + " arrays");
  const py::object h = part(pair[0], "state h", c.output()), cell = part(pair[1], "state c", c.hidden);
  s.write_state(static_cast<const T*>(py::array(h).data()), static_cast<const T*>(py::array(cell).data()));
}

AnyStream make_stream(const std::shared_ptr<AnyNetwork>& any, int batch, int threads) {
  if (any->weights.empty()) throw py::value_error("network: pack() was never called");
  if (any->config().bidirectional) {
    throw py::value_error(
        "stream: expected a unidirectional layer; the reverse direction starts at the end of the sequence");
  }
  if (batch < 1 || batch > 1 << 20) {
    throw py::value_error("batch_size: expected an integer from 1 to 1048576, got " + std::to_string(batch));
  }
  if (threads < 1 || threads > 1024) {
    throw py::value_error("num_threads: expected an integer from 1 to 1024, got " + std::to_string(threads));
  }
  return std::visit(
      [&](const auto& net) -> AnyStream {
        using Net = std::remove_reference_t<decltype(*net)>;
        return std::make_unique<Stream<std::decay_t<decltype(*std::declval<Net>().weights(0).w)>>>(net, batch, threads);
      },
      any->network);
}

const char* const kClassDoc =
    "A recurrent layer fed one sample at a time, its memory carried along. Made by ``layer.stream(batch_size)``.\n\n"
    "It keeps the weights the layer had when it was made, gives the bits the layer gives for the whole sequence,\n"
    "allocates nothing after creation, and belongs to one thread.";
const char* const kStepDoc =
    "step(x, out=None) -> y\n\nOne step. x [B, I], or [I] when batch_size is 1; y [B, P], or [P], written into `out`\n"
    "when given (C-contiguous, not overlapping x; then nothing is allocated).\n"
    "Raises TypeError for another dtype, ValueError for another shape, a read-only or an overlapping `out`; the\n"
    "memory is then unchanged.";
const char* const kProcessDoc =
    "process(block, out=None) -> y\n\nSteps through block [T, B, I], or [T, I] when batch_size is 1; y [T, B, P] or\n"
    "[T, P]. The same bits as T calls of step. Releases the GIL.";
const char* const kResetDoc =
    "reset(rows=None)\n\nForgets: sets the state to zero, of all rows or of some (a bool mask [B] or integer indices).";
const char* const kStateDoc =
    "The memory: (h, c) of an LSTM, h otherwise; h [num_layers, B, P], c [num_layers, B, H]. Reading copies; "
    "assigning\n"
    "checks shape and dtype and copies.";

}  // namespace

void bind_stream(py::module_& m) {
  py::class_<AnyStream>(m, "Stream", kClassDoc)
      .def(py::init(&make_stream), py::arg("network"), py::arg("batch_size") = 1, py::arg("num_threads") = 1)
      .def(
          "step",
          [](AnyStream& any, py::handle x, py::handle out) {
            return std::visit([&](auto& s) { return step(*s, x, out); }, any);
          },
          py::arg("x"), py::arg("out") = py::none(), kStepDoc)
      .def(
          "process",
          [](AnyStream& any, py::object block, py::object out) {
            return std::visit([&](auto& s) { return process(*s, block, out); }, any);
          },
          py::arg("block"), py::arg("out") = py::none(), kProcessDoc)
      .def(
          "reset", [](AnyStream& any, const py::object& rows) { std::visit([&](auto& s) { reset(*s, rows); }, any); },
          py::arg("rows") = py::none(), kResetDoc)
      .def_property(
          "state", [](const AnyStream& any) { return std::visit([](const auto& s) { return get_state(*s); }, any); },
          [](AnyStream& any, const py::object& state) { std::visit([&](auto& s) { set_state(*s, state); }, any); },
          kStateDoc)
      .def_property_readonly(
          "batch_size", [](const AnyStream& any) { return std::visit([](const auto& s) { return s->batch(); }, any); });
}

}  // namespace fastrnn
