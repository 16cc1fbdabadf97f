// What fastrnn.torch calls: weights that are somebody else's, tensors as they come, the tape in one of them. Everything
// is checked here, since operators may be called with anything; modules look again only when this refuses.
#include <pybind11/stl.h>

#include <optional>

#include "network/unpacked.h"
#include "python/arrays.h"
#include "python/bind.h"
#include "python/checks.h"
#include "python/followed.h"
#include "python/method.h"
#include "python/reserve.h"
#include "python/torch_call.h"
#include "python/unlocked.h"
#include "registry.h"

namespace fastrnn {
namespace {

// One pass: tensors on the one side, what the core is told on the other.
template <class T>
class Pass {
 public:
  Pass(AnyFollower& any, const Tensor& x, const TorchCall& call)
      : any_(any), config_(any.config), backend_(current_backend()), call_(call), x_(x) {
    const bool packed = call.layout == kPacked;
    const Axes axes = call.axes();
    const int64_t steps = packed ? call.batch_sizes->size(0) : axes.step < 0 ? 1 : x.size(axes.step);
    const int64_t batch = packed ? call.batch : axes.row < 0 ? 1 : x.size(axes.row);
    if (call.layout == kStep && config_.sweeps() != 1) {  // y is its h, and there is no place for another
      throw py::value_error("layout: 3, a single step, is for one layer in one direction, got " +
                            std::to_string(config_.layers) + " in " + std::to_string(config_.directions()));
    }
    if (packed) lengths_ = packed_lengths(call, x.size(0));  // which says what is wrong with batch_sizes
    check_size("input", steps, batch);
    if (call.lengths) lengths_ = padded_lengths(*call.lengths, steps, batch);
    Sequence<T>& s = sequence_;
    s.steps = steps, s.batch = int(batch), s.lengths = packed || call.lengths ? lengths_.data() : nullptr;
    s.x = rows<const T>(x);
    s.dropout = call.dropout, s.seed = call.seed, s.threads = call.threads, s.regions = true;
  }

  py::tuple forward(py::handle h0, py::handle c0, const py::sequence& weights, bool keep, const Fixed* fixed) {
    Sequence<T>& s = sequence_;
    take_weights(weights);
    s.h0 = given(h0, {"h0"}, state(config_.output())), s.c0 = given_cell(c0, {"c0"});
    const Tensor y = x_.fresh(outputs(config_.width()));
    s.y = rows<T>(y);
    py::object hn = py::none(), cn = py::none(), reserve = py::none(), lease = py::none();
    s.hn = call_.layout == kStep ? y.data<T>() : fresh(state(config_.output()), hn);
    if (cell().has_cell_state) s.cn = fresh(state(config_.hidden), cn);
    if (keep) {
      reserve = forward_with_tape(lease);
    } else {
      const Network<T>* const network = fixed ? fixed->network_of(*weights_, backend_) : nullptr;
      const Unlocked unlocked;
      if (network) {
        network->run(s);
      } else {
        any_.of<T>().run(backend_, weights_->data(), s);
      }
    }
    return py::make_tuple(y.object(), std::move(hn), std::move(cn), std::move(reserve), std::move(lease));
  }

  py::list backward(py::handle output, const Tensor& saved, const py::sequence& weights, const py::tuple& upstream,
                    const py::tuple& wanted, const Lease* lease) {
    take_output(output);
    const Tensor reserve = aligned_tape<T>(saved);
    if (!lease) take_weights(weights);
    Gradients<T> g = {};
    g.threads = call_.threads;
    if (!upstream[0].is_none()) g.dy = given_rows(upstream[0], {"dy"}, outputs(config_.width()));
    g.dh = given(upstream[1], {"dh"}, state(config_.output()));
    g.dc = given_cell(upstream[2], {"dc"});
    py::object dx = py::none(), dh0 = py::none(), dc0 = py::none();
    if (wanted[0].cast<bool>()) {
      const Tensor made = x_.fresh(outputs(config_.input));
      g.dx = rows<T>(made), dx = made.object();
    }
    if (wanted[1].cast<bool>()) g.dh0 = fresh(state(config_.output()), dh0);
    if (wanted[2].cast<bool>()) need_cell_state("wanted[2]: expected False"), g.dc0 = fresh(state(config_.hidden), dc0);
    py::list results;
    for (const py::object& d : {dx, dh0, dc0}) results.append(d);
    const bool all = wanted[3].cast<bool>();
    std::vector<T*> gradients;
    each_shape(config_, cell().gates, [&](const Shape& shape) {
      py::object dw = py::none();
      if (all) gradients.push_back(placed(fresh_gradient<T>(x_, shape), dw));
      results.append(std::move(dw));
    });
    g.weights = all ? gradients.data() : nullptr;
    check_reserve(reserve, reserve_bytes(config_, cell(), sequence_));
    const char* const tape = reserve.data<const char>();
    const Unlocked unlocked;
    if (lease) {
      leased(*lease)->backward(sequence_, tape, g);
    } else if (suits_unpacked(config_, sequence_)) {
      any_.of<T>().backward_unpacked(backend_, weights_->data(), sequence_, tape, g);
    } else {
      follow()->backward(sequence_, tape, g);
    }
    return results;
  }

 private:
  // None: h of a single step, which a cell does not read that has saved its gates.
  void take_output(py::handle output) {
    if (output.is_none() && call_.layout == kStep && cell().saved > 0) return;
    const Tensor y = tensor_of(output, {"output"});
    check<T>(y, {"output"}, outputs(config_.width()));
    if (!y.contiguous()) throw py::value_error("output: expected what forward returned, got a tensor with gaps");
    sequence_.y = rows<T>(given_.kept(output, y));
  }

  // Returns the tape, and a lease of the packed weights for one pass back; None where it reads those of torch, too.
  py::object forward_with_tape(py::object& lease) {
    // Of a padded batch all rows as if they were whole: who records shapes alone does not know lengths, and memory that
    // nobody touches takes no page.
    Sequence<T> whole = sequence_;
    if (call_.lengths) whole.lengths = nullptr;
    const Tensor reserve = fresh_tape<T>(x_, reserve_bytes(config_, cell(), whole) / sizeof(T));
    check_reserve(reserve, reserve_bytes(config_, cell(), sequence_));
    std::shared_ptr<const Network<T>> network;
    {
      const Unlocked unlocked;
      if (fits_one_group(config_, backend_, sequence_) ||
          (suits_unpacked(config_, sequence_) && any_.of<T>().changed(backend_, weights_->data()))) {
        any_.of<T>().forward_unpacked(backend_, weights_->data(), sequence_, reserve.data<char>());
      } else {
        network = follow();
        network->pack_backward(
            network->packing_threads(Use::backward, sequence_.steps, sequence_.batch, call_.threads));
        network->forward(sequence_, reserve.data<char>());
      }
    }
    if (network) lease = py::cast(std::make_unique<Lease>(Lease{{}, std::move(network)}));
    return reserve.object();
  }

  std::shared_ptr<const Network<T>> leased(const Lease& lease) const {
    const Config& theirs = *visit_made(lease.network, "lease", [](const auto& network) { return &network->config(); });
    const auto* const network = std::get_if<std::shared_ptr<const Network<T>>>(&lease.network);
    if (network && same(theirs, config_)) return *network;
    const char* const dtype = lease.network.index() ? "float64" : "float32";
    throw std::invalid_argument("lease: expected that of a pass forward of " + describe(config_, dtype_name<T>()) +
                                ", got that of " + describe(theirs, dtype));
  }

  std::shared_ptr<const Network<T>> follow() {
    return any_.of<T>().follow(backend_, weights_->data(), sequence_.steps, sequence_.batch, call_.threads);
  }

  const CellKernels<T>& cell() const { return kernels_of<T>(backend_).cells[int(config_.cell)]; }

  void need_cell_state(const std::string& expected) const {
    if (!cell().has_cell_state) throw py::value_error(expected + ", only an LSTM has a cell state");
  }

  void take_weights(const py::sequence& given) { weights_.emplace(config_, cell().gates, given); }

  // null for None
  const T* given(py::handle object, Name name, const Shape& shape) {
    return object.is_none() ? nullptr : required(object, name, shape);
  }

  // The same for c, or its gradient.
  const T* given_cell(py::handle object, Name name) {
    if (object.is_none()) return nullptr;
    need_cell_state(name.str() + ": expected None");
    return required(object, name, state(config_.hidden));
  }

  const T* required(py::handle object, Name name, const Shape& shape) {
    return given_.required<T>(object, name, shape);
  }

  Rows<const T> given_rows(py::handle object, Name name, const Shape& shape) {
    const Tensor t = tensor_of(object, name);
    check<T>(t, name, shape);
    return rows<const T>(given_.kept(object, t.dense_rows(name, call_.layout == kPacked)));
  }

  T* fresh(const Shape& shape, py::object& object) const { return placed(x_.fresh(shape), object); }

  static T* placed(const Tensor& made, py::object& object) {
    object = made.object();
    return made.data<T>();
  }

  template <class U>
  Rows<U> rows(const Tensor& t) const {
    const Axes axes = call_.axes();
    const auto stride = [&](int axis) { return axis < 0 ? 0 : ptrdiff_t(t.stride(axis)); };
    if (call_.layout == kPacked) return {t.data<U>(), 0, ptrdiff_t(t.size(1)), true};
    return {t.data<U>(), stride(axes.step), stride(axes.row), false};
  }

  // The shape of a sequence of `width` features, and of a state of `size`.
  Shape outputs(int width) const {
    return x_.dims() == 3 ? Shape{3, {x_.size(0), x_.size(1), width}} : Shape{2, {x_.size(0), width}};
  }
  Shape state(int size) const {
    if (call_.layout == kStep) return {2, {sequence_.batch, size}};
    if (call_.layout == kUnbatched) return {2, {config_.sweeps(), size}};
    return {3, {config_.sweeps(), sequence_.batch, size}};
  }

  AnyFollower& any_;
  const Config& config_;
  const Backend& backend_;
  const TorchCall& call_;
  const Tensor& x_;
  Sequence<T> sequence_ = {};
  std::vector<int64_t> lengths_;
  Given given_;
  std::optional<GivenWeights<T>> weights_;
};

// body(pass) in the precision of the input.
template <class Body>
auto pass_of(AnyFollower& any, py::handle input, py::handle arguments, int threads, Body body) {
  need_made(any.config.layers > 0, "follower");
  const TorchCall call(tuple_of(arguments, "call", 6), threads);
  const Tensor x = input_of(input, any.config, call);
  if (x.bits() == 64) return body(Pass<double>(any, x, call));
  return body(Pass<float>(any, x, call));
}

constexpr Signature<8> kForward = {"forward", {"x", "h0", "c0", "weights", "call", "threads", "keep", "fixed"}, 8};
constexpr Signature<9> kBackward = {
    "backward", {"x", "y", "reserve", "weights", "call", "threads", "upstream", "wanted", "lease"}, 9};

py::object call_forward(AnyFollower& any, const Arguments<8>& a) {
  const Fixed* const fixed = given_object<Fixed>(a[7], "fixed", "a Fixed or None");
  return pass_of(any, a[0], a[4], a[5].cast<int>(), [&](auto&& pass) {
    return pass.forward(a[1], a[2], sequence_of(a[3], "weights"), a[6].cast<bool>(), fixed);
  });
}

py::object call_backward(AnyFollower& any, const Arguments<9>& a) {
  const Lease* const lease = given_object<Lease>(a[8], "lease", "a Lease or None");
  return pass_of(any, a[0], a[4], a[5].cast<int>(), [&](auto&& pass) {
    return pass.backward(a[1], tensor_of(a[2], {"reserve"}), sequence_of(a[3], "weights"),
                         tuple_of(a[6], "upstream", 3), tuple_of(a[7], "wanted", 4), lease);
  });
}

}  // namespace

void bind_follower(py::module_& m) {
  py::class_<Lease>(m, "Lease");
  py::class_<Fixed>(m, "Fixed").def("changed", &Fixed::changed);
  auto follower = py::class_<AnyFollower>(m, "Follower");
  follower
      .def(py::init([](const std::string& cell, int input, int hidden, int layers, bool bias, bool bidirectional,
                       int projection) {
        return std::make_unique<AnyFollower>(
            checked_config(cell, input, hidden, layers, bias, bidirectional, projection));
      }))
      .def("fix",
           [](AnyFollower& any, const py::sequence& weights, int threads) {
             need_made(any.config.layers > 0, "follower");
             return fix(any, weights, threads_of(threads));
           })
      .def_property_readonly("packings",
                             [](const AnyFollower& any) { return any.f32.packings() + any.f64.packings(); });
  define_method<AnyFollower, kForward, &call_forward>(follower, "See Kernel of fastrnn/torch/_kernel.py.");
  define_method<AnyFollower, kBackward, &call_backward>(follower, "See Kernel of fastrnn/torch/_kernel.py.");
  m.def("use_tensors", &use_tensors);
  // For tests alone.
  m.def("fingerprint", [](uintptr_t data, size_t bytes) {
    return current_backend().fingerprint(reinterpret_cast<const char*>(data), bytes);
  });
}

}  // namespace fastrnn
