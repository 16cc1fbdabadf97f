#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>

#include "network/unpacked.h"
#include "python/arrays.h"
#include "python/bind.h"
#include "python/checks.h"
#include "python/method.h"
#include "python/results.h"
#include "python/unlocked.h"
#include "registry.h"
#include "system/limits.h"

namespace fastrnn {
namespace {

std::shared_ptr<AnyNetwork> make_network(const std::string& cell, const std::string& dtype, int input, int hidden,
                                         int layers, bool bias, bool bidirectional, int projection) {
  return with_dtype(dtype, [&](auto zero) {
    const Config config = checked_config(cell, input, hidden, layers, bias, bidirectional, projection);
    auto any = std::make_shared<AnyNetwork>();
    any->network = std::make_shared<Network<decltype(zero)>>(config, current_backend());
    return any;
  });
}

template <class T>
std::vector<T*> weight_pointers(const Network<T>& net, const std::vector<py::object>& arrays, const char* name,
                                bool write) {
  const Config& c = net.config();
  const size_t expected = c.weight_count();
  if (arrays.size() != expected) {
    throw py::value_error(std::string(name) + ": expected " + std::to_string(expected) + " arrays, got " +
                          std::to_string(arrays.size()));
  }
  std::vector<T*> pointers;
  each_weight(c, net.cell().gates, [&](ssize_t rows, ssize_t columns) {
    const py::object& a = arrays[pointers.size()];
    need_array(a, name);
    const auto take = [&](auto... dims) {
      return write ? writable<T>(a, name, {dims...}) : const_cast<T*>(contiguous<T>(a, name, {dims...}));
    };
    pointers.push_back(columns ? take(rows, columns) : take(rows));
  });
  return pointers;
}

// steps, batch: of the pass to come.
void pack(AnyNetwork& any, std::vector<py::object> weights, int threads, int64_t steps, int64_t batch) {
  const int most = threads_of(threads);
  visit_made(any.network, "network", [&](const auto& net) {
    const auto pointers = weight_pointers(*net, weights, "weights", false);
    const int64_t counted = std::min(steps, kMaxSteps);  // the pass will refuse more
    const int rows = int(std::min(batch, kMaxBatch));
    net->take(pointers.data());
    any.weights.swap(weights);  // before what may fail: it reads them from now on
    const Unlocked unlocked;
    net->pack_forward(net->packing_threads(Use::training, counted, rows, most));
  });
}

// The same for one pass that would read packed weights only once. False, and nothing has changed, where it is none.
bool take(AnyNetwork& any, std::vector<py::object> weights, int64_t steps, int64_t batch) {
  return visit_made(any.network, "network", [&](const auto& net) {
    using T = element_of<decltype(net)>;
    Sequence<T> call = {};
    call.steps = steps, call.batch = int(std::clamp<int64_t>(batch, 0, kMaxBatch));
    if (!suits_unpacked(net->config(), call)) return false;
    const auto pointers = weight_pointers(*net, weights, "weights", false);
    net->take(pointers.data());
    any.weights.swap(weights);
    return true;
  });
}

// Fresh arrays with the weights of the last pack().
std::vector<py::object> copy_weights(AnyNetwork& any) {
  std::vector<py::object> copies;
  std::vector<void*> to;
  for (const py::object& w : std::vector<py::object>(any.weights)) {  // another thread may pack meanwhile
    const auto from = py::reinterpret_borrow<py::array>(w);
    py::array copy(from.dtype(), std::vector<ssize_t>(from.shape(), from.shape() + from.ndim()));
    to.push_back(copy.mutable_data());
    copies.push_back(std::move(copy));
  }
  // From here on nothing calls Python, which might let another thread edit the weights.
  const auto& source = any.frozen.empty() ? any.weights : any.frozen;
  for (size_t i = 0; i < source.size(); ++i) {
    const auto* const from = py::detail::array_proxy(source[i].ptr());
    std::memcpy(to[i], from->data, size_t(py::reinterpret_borrow<py::array>(copies[i]).nbytes()));
  }
  return copies;
}

// To be called before the arrays that pack() got are written to: streams that are pickled afterwards need them.
void freeze(AnyNetwork& any) {
  std::vector<py::object> copies = copy_weights(any);
  if (any.frozen.empty()) any.frozen.swap(copies);
}

py::tuple config_tuple(const AnyNetwork& any) {
  const Config& c = any.config();
  return py::make_tuple(kCellNames[int(c.cell)], any.dtype(), c.input, c.hidden, c.layers, c.bias, c.bidirectional,
                        c.projection);
}

struct PassArguments {
  py::object x, h0, c0, lengths, y, hn, cn;
  double dropout;
  uint64_t seed;
  int threads;
};

// lengths: where the sequence's lie.
template <class T>
Sequence<T> bound_sequence(const Network<T>& net, const PassArguments& a, std::vector<int64_t>& lengths) {
  const Config& c = net.config();
  const py::array x = as_array<T>(a.x, "x");
  if (x.ndim() != 3) bad_shape("x", "[T, B, I]", x);
  const ssize_t steps = x.shape(0), batch = x.shape(1), sweeps = c.sweeps();
  check_size("x", steps, batch);
  const bool lstm = net.cell().has_cell_state;
  Sequence<T> s = {};
  s.steps = steps, s.batch = int(batch);
  s.x = rows_of<T>(a.x, "x", steps, batch, c.input);
  s.y = writable_rows<T>(a.y, "y", steps, batch, c.width());
  s.h0 = contiguous<T>(a.h0, "h0", {sweeps, batch, c.output()});
  s.hn = writable<T>(a.hn, "hn", {sweeps, batch, c.output()});
  s.c0 = lstm ? contiguous<T>(a.c0, "c0", {sweeps, batch, c.hidden}) : nullptr;
  s.cn = lstm ? writable<T>(a.cn, "cn", {sweeps, batch, c.hidden}) : nullptr;
  need_array(a.y, "y"), need_array(a.hn, "hn");
  if (lstm) need_array(a.cn, "cn");
  if (!a.lengths.is_none()) {
    lengths = checked_lengths(contiguous<int64_t>(a.lengths, "lengths", {batch}), steps, batch);
    s.lengths = lengths.data();
  }
  s.dropout = checked_dropout(a.dropout), s.seed = a.seed, s.threads = threads_of(a.threads);
  return s;
}

void run(const AnyNetwork& any, py::object x, py::object h0, py::object c0, py::object lengths, py::object y,
         py::object hn, py::object cn, double dropout, uint64_t seed, int threads) {
  check_packed(any);
  age_results();
  std::visit(
      [&](const auto& net) {
        std::vector<int64_t> kept;
        const auto s = bound_sequence(*net, {x, h0, c0, lengths, y, hn, cn, dropout, seed, threads}, kept);
        const Unlocked unlocked;
        net->run(s);
      },
      any.network);
}

AnyTape forward(const std::shared_ptr<AnyNetwork>& any, py::object x, py::object h0, py::object c0, py::object lengths,
                py::object y, py::object hn, py::object cn, double dropout, uint64_t seed, int threads, bool batched,
                bool batch_first) {
  check_packed(*any);
  return std::visit(
      [&](const auto& net) {
        std::vector<int64_t> kept;
        const auto s = bound_sequence(*net, {x, h0, c0, lengths, y, hn, cn, dropout, seed, threads}, kept);
        AnyTape tape;
        tape.network = any, tape.batched = batched, tape.batch_first = batched && batch_first;
        tape.arrays = {x, y};
        const Unlocked unlocked;
        tape.tape = net->forward(s);
        return tape;
      },
      any->network);
}

void backward(const AnyNetwork& any, const AnyTape& any_tape, py::object dy, py::object dh, py::object dc,
              py::object dx, py::object dh0, py::object dc0, const std::vector<py::object>& grads, int threads,
              py::object step_norms) {
  check_tape(any, any_tape);
  visit_made(any_tape.tape, "tape", [&](const auto& tape) {
    using T = element_of<decltype(tape)>;
    const auto& net = *std::get<std::shared_ptr<Network<T>>>(any.network);
    const Config& c = net.config();
    const ssize_t steps = tape->order.steps(), batch = tape->order.batch(), sweeps = c.sweeps();
    const bool lstm = net.cell().has_cell_state;
    Gradients<T> g = {};
    g.dy = rows_of<T>(dy, "dy", steps, batch, c.width());
    g.dx = writable_rows<T>(dx, "dx", steps, batch, c.input);
    g.dh = contiguous<T>(dh, "dh", {sweeps, batch, c.output()});
    g.dh0 = writable<T>(dh0, "dh0", {sweeps, batch, c.output()});
    if (lstm) g.dc = contiguous<T>(dc, "dc", {sweeps, batch, c.hidden});
    if (lstm) g.dc0 = writable<T>(dc0, "dc0", {sweeps, batch, c.hidden});
    g.step_norms = writable<double>(step_norms, "step_norms", {sweeps, steps, batch});
    const std::vector<T*> weights = weight_pointers(net, grads, "grads", true);
    g.weights = weights.data(), g.threads = threads_of(threads);
    const Unlocked unlocked;
    net.backward(*tape, g);
  });
}

}  // namespace

void check_packed(const AnyNetwork& any) {
  if (any.weights.empty()) throw py::value_error("network: pack() was never called");
}

void check_tape(const AnyNetwork& any, const AnyTape& tape) {
  if (tape.network.get() != &any) throw py::value_error("tape: recorded by another network");
}

void check_streams(const AnyNetwork& any) {
  check_packed(any);
  if (any.config().bidirectional) {
    throw py::value_error(
        "stream: expected a unidirectional layer, got a bidirectional one; the reverse direction starts at the end of "
        "the sequence");
  }
}

constexpr Signature<4> kPlainCall = {"plain_call", {"x", "state", "batch_first", "threads"}, 4};

py::object call_network(AnyNetwork& any, const Arguments<4>& a) {
  return plain_call(any, a[0], a[1], a[2].cast<bool>(), a[3].cast<int>());
}

void bind_network(py::module_& m) {
  py::class_<AnyTape>(m, "Tape")
      .def_property_readonly("nbytes", &AnyTape::nbytes)
      .def_readonly("batched", &AnyTape::batched)
      .def_readonly("batch_first", &AnyTape::batch_first)
      .def_property_readonly("steps", [](const AnyTape& any) { return any.order().steps(); })
      .def_property_readonly("batch", [](const AnyTape& any) { return any.order().batch(); });
  py::class_<AnyNetwork, std::shared_ptr<AnyNetwork>> network(m, "Network");
  network.def(py::init(&make_network))
      .def("pack", &pack, py::arg("weights"), py::arg("threads") = 1, py::arg("steps") = 1, py::arg("batch") = 1)
      .def("take", &take)
      .def("freeze", &freeze)
      .def("weights", &copy_weights)
      .def_property_readonly("config", &config_tuple)
      .def("plain_forward", &plain_forward)
      .def("plain_backward", &plain_backward)
      .def("run", &run)
      .def("forward", &forward)
      .def("backward", &backward)
      .def("explain", &explain);
  define_method<AnyNetwork, kPlainCall, &call_network>(network, "Return (y, final state), or None.");
}

}  // namespace fastrnn
