// fastrnn.Stream.
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "python/bind.h"
#include "python/checks.h"
#include "python/claim.h"
#include "python/integers.h"
#include "python/method.h"
#include "python/rows.h"
#include "python/sizes.h"
#include "python/state.h"
#include "python/unlocked.h"
#include "stream.h"
#include "system/clock.h"
#include "system/limits.h"

namespace fastrnn {
namespace {

struct AnyStream : Zeroed {
  static constexpr const char* kWhat = "stream";
  std::variant<std::unique_ptr<Stream<float>>, std::unique_ptr<Stream<double>>> held;
  std::shared_ptr<AnyNetwork> network;
  double step_flops;  // of all rows
  std::atomic<bool> busy{false};
};

template <class T>
const Config& config_of(const Stream<T>& s) {
  return s.network().config();
}

template <class T>
py::object step(Stream<T>& s, double flops, py::handle x, py::handle out) {
  const Config& c = config_of(s);
  return step_rows_with<T>(s.batch(), c.input, c.output(), x, out,
                           [&](const T* in, T* y) { run_unlocked(flops, [&] { s.step(in, y); }); });
}

template <class T>
py::object process(Stream<T>& s, py::handle block, py::handle out) {
  const Config& c = config_of(s);
  return block_with<T>(s.batch(), c.input, c.output(), "block", block, out,
                       [&](int64_t steps, Rows<const T> x, Rows<T> y) {
                         const Unlocked unlocked;
                         s.process(steps, x, y);
                       });
}

// rows: None, a bool mask [B], one index or several.
template <class T>
void reset(Stream<T>& s, py::handle rows) {
  if (rows.is_none()) return s.reset();
  py::array a = integers(rows, "rows", "rows: expected a bool mask or integer indices");
  const ssize_t batch = s.batch();
  if (a.dtype().kind() == 'b') {
    if (a.ndim() != 1 || a.shape(0) != batch) bad_shape("rows", "[" + std::to_string(batch) + "]", a);
    const auto mask = py::array_t<bool, py::array::c_style | py::array::forcecast>(a);
    for (ssize_t i = 0; i < batch; ++i) {
      if (mask.at(i)) s.reset(int(i));
    }
    return;
  }
  if (a.ndim() > 1) bad_shape("rows", "[n]", a);
  const std::string expected = "rows: expected indices from 0 to " + std::to_string(batch - 1);
  const py::array_t<int64_t> flat = as_int64(a.reshape({-1}), expected);
  const std::vector<int64_t> index(flat.data(), flat.data() + flat.size());  // the caller's may change meanwhile
  for (size_t i = 0; i < index.size(); ++i) {
    if (index[i] >= 0 && index[i] < batch) continue;
    throw py::value_error(expected + ", got " + std::to_string(index[i]) + " at position " + std::to_string(i));
  }
  for (const int64_t row : index) s.reset(int(row));
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
  const ssize_t layers = c.layers, batch = s.batch();
  take_state<T>(state, s.network().cell().has_cell_state, {layers, batch, c.output()}, {layers, batch, c.hidden},
                [&](const T* h, const T* cell) { s.write_state(h, cell); });
}

std::unique_ptr<AnyStream> make_stream(const std::shared_ptr<AnyNetwork>& any, int batch, int threads) {
  check_streams(*any);
  within(threads, 1, kMaxThreads, "num_threads");
  within(batch, 1, kMaxSize, "batch_size");
  auto made = std::make_unique<AnyStream>();
  made->network = any;
  std::visit(
      [&](const auto& net) {
        using T = element_of<decltype(net)>;
        made->step_flops = batch * step_flops(net->config(), net->cell().gates);
        made->held = std::make_unique<Stream<T>>(net, batch, threads);
      },
      any->network);
  return made;
}

// Another stream of the same weights, at the same point.
std::unique_ptr<AnyStream> copy(AnyStream& any) {
  return claimed(any, [&](auto& s) {
    auto made = make_stream(any.network, s.batch(), s.threads());
    std::get<std::unique_ptr<std::decay_t<decltype(s)>>>(made->held)->copy_state(s);
    return made;
  });
}

// Nanoseconds of each of `count` steps through the rows of block
// [T, B, I], again and again, without Python between them.
template <class T>
py::array_t<int64_t> step_times(Stream<T>& s, const py::object& block, int64_t count) {
  const Config& c = config_of(s);
  const py::array x = as_array<T>(block, "block");
  if (x.ndim() != 3 || x.shape(0) < 1) bad_shape("block", "[T, B, I]", x);
  const T* const in = contiguous<T>(block, "block", {x.shape(0), s.batch(), c.input});
  if (count < 1) throw py::value_error("count: expected 1 or more, got " + std::to_string(count));
  const int64_t steps = x.shape(0), width = int64_t(s.batch()) * c.input;
  std::vector<T> y(size_t(s.batch()) * size_t(c.output()));
  py::array_t<int64_t> times(count);
  int64_t* const to = times.mutable_data();
  const Unlocked unlocked;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t start = nanoseconds();
    s.step(in + i % steps * width, y.data());
    to[i] = nanoseconds() - start;
  }
  return times;
}

std::string repr_of(const AnyStream& any) {
  if (!any.network) return "<Stream, never initialised>";
  const int batch = looked_at(any, [](auto& s) { return s.batch(); });
  return "<Stream of " + describe(any.network->config(), any.network->dtype()) +
         ", batch_size=" + std::to_string(batch) + ">";
}

constexpr Signature<2> kStreamStep = {"step", {"x", "out"}, 1};
constexpr Signature<2> kStreamProcess = {"process", {"block", "out"}, 1};
constexpr Signature<1> kStreamReset = {"reset", {"rows"}, 0};

py::object call_step(AnyStream& any, const Arguments<2>& a) {
  return claimed(any, [&](auto& s) { return step(s, any.step_flops, a[0], a[1]); });
}

py::object call_process(AnyStream& any, const Arguments<2>& a) {
  return claimed(any, [&](auto& s) { return process(s, a[0], a[1]); });
}

py::object call_reset(AnyStream& any, const Arguments<1>& a) {
  claimed(any, [&](auto& s) { reset(s, a[0]); });
  return py::none();
}

// The same in _core.pyi, for editors: a test compares them.
const char* const kClassDoc =
    R"(A recurrent layer fed one sample at a time, its memory carried along.

Made by `layer.stream(batch_size)`. It keeps the weights the layer had then, gives the bits the
layer gives for the whole sequence, and allocates nothing after creation. A stream is used from
one thread at a time: a call that meets another one is a RuntimeError. copy.copy, copy.deepcopy
and pickle give another stream at the same point, with the same weights.

Shapes: B is batch_size, I input_size, P output_size, L num_layers, H the layer's hidden_size.)";

const char* const kStepDoc =
    R"(Advance by one step and return y, the output of the last layer.

After an error the state is what it was.

Args:
    x: [B, I], or [I] when batch_size is 1, of the stream's dtype: a NumPy array, or what
        has `__dlpack__` or `__array__`. Copied unless it is C-contiguous.
    out: [B, P], or [P] when batch_size is 1: the array that y is written into and that is
        returned; nothing is allocated then. C-contiguous, writable, apart from x.

Returns:
    `out`, or a new array: [B, P], or [P] where x is [I].

Raises:
    TypeError: no array, a masked one, or one of another dtype.
    ValueError: another shape; an `out` that is read-only, has gaps or overlaps x.
    RuntimeError: another thread uses the stream.)";

const char* const kProcessDoc =
    R"(Advance by T steps and return all their outputs: the bits of T calls of `step`.

Releases the GIL. After an error the state is what it was.

Args:
    block: [T, B, I], or [T, I] when batch_size is 1, as x of `step`. T may be 0.
    out: [T, B, P], or [T, P] for a block [T, I]: the array that y is written into and that
        is returned. C-contiguous, writable, apart from block.

Returns:
    `out`, or a new array of its shape.

Raises:
    TypeError: no array, a masked one, or one of another dtype.
    ValueError: another shape; an `out` that is read-only, has gaps or overlaps block.
    RuntimeError: another thread uses the stream.)";

const char* const kResetDoc =
    R"(Set the state to zero, of all rows or of some; after an error, of none.

Args:
    rows: None for all; else a bool mask [B], or integers from 0 to B - 1, one alone or [n]
        in any order.

Raises:
    TypeError: neither booleans nor integers, or a masked array.
    ValueError: a mask of another shape, a row that is not there.
    RuntimeError: another thread uses the stream.)";

const char* const kStateDoc =
    R"(The memory: (h, c) of an LSTM, h alone of others; h [L, B, P], c [L, B, H].

Arrays of the stream's dtype. Reading copies. Assigning copies, too, once all of it has been
checked: after an error the state is what it was. When batch_size is 1, [L, P] and [L, H]
are taken as well.

Raises:
    TypeError: no pair (h, c) for an LSTM, no array, or one of another dtype.
    ValueError: another shape, another number of arrays.
    RuntimeError: another thread uses the stream.)";

const char* const kBatchDoc = "B: how many rows a step has, each with a memory of its own.";
const char* const kStreamThreadsDoc = "How many threads a step may use at most.";

}  // namespace

void bind_stream(py::module_& m) {
  py::class_<AnyStream> stream(m, "Stream", kClassDoc);
  stream
      .def(py::init(&make_stream), py::arg("network").none(false), py::arg("batch_size") = 1,
           py::arg("num_threads") = 1)
      .def(py::init([](const py::args&, const py::kwargs&) -> std::unique_ptr<AnyStream> {
        throw py::type_error("Stream: expected to be made by layer.stream()");
      }))
      .def_property(
          "state", [](AnyStream& any) { return claimed(any, [](auto& s) { return get_state(s); }); },
          [](AnyStream& any, const py::object& state) { claimed(any, [&](auto& s) { set_state(s, state); }); },
          kStateDoc)
      .def("__copy__", &copy)
      .def("__deepcopy__", [](AnyStream& any, const py::handle&) { return copy(any); })
      .def("__repr__", [](const AnyStream& any) { return repr_of(any); })
      .def("_step_times",
           [](AnyStream& any, const py::object& block, int64_t count) {
             return claimed(any, [&](auto& s) { return step_times(s, block, count); });
           })
      .def_property_readonly(
          "batch_size", [](const AnyStream& any) { return looked_at(any, [](auto& s) { return s.batch(); }); },
          kBatchDoc)
      .def_property_readonly(
          "num_threads", [](const AnyStream& any) { return looked_at(any, [](auto& s) { return s.threads(); }); },
          kStreamThreadsDoc);
  define_method<AnyStream, kStreamStep, &call_step>(stream, kStepDoc);
  define_method<AnyStream, kStreamProcess, &call_process>(stream, kProcessDoc);
  define_method<AnyStream, kStreamReset, &call_reset>(stream, kResetDoc);
  define_sizes(stream);
}

}  // namespace fastrnn
