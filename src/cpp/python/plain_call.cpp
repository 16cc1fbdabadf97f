// Calls as most calls are: arrays that can be read as they lie, no lengths, no dropout.
// Everything is checked and made here; bound in Python, argument by argument, LSTM T10
// B1 H32 takes 5.5 us instead of 4.1, and a step of its training 33.6 instead of 23.5.
#include "python/arrays.h"
#include "python/bind.h"
#include "python/checks.h"
#include "python/results.h"
#include "python/unlocked.h"
#include "system/limits.h"

namespace fastrnn {
namespace {

// How a caller lays out sequences and states.
struct Form {
  bool batched, rows_first;
  ssize_t steps, batch, sweeps;

  ArrayShape sequence(ssize_t width) const {
    if (!batched) return {2, {steps, width}};
    return rows_first ? ArrayShape{3, {batch, steps, width}} : ArrayShape{3, {steps, batch, width}};
  }
  ArrayShape state(ssize_t size) const {
    return batched ? ArrayShape{3, {sweeps, batch, size}} : ArrayShape{2, {sweeps, size}};
  }
  template <class T>
  Rows<T> rows(T* data, ptrdiff_t width) const {
    return {data, rows_first ? width : batch * width, rows_first ? steps * width : width};
  }
};

// An array or None. Held: in a tuple it is the caller's alone, and another thread might resize it while it is read.
template <class T>
struct PlainInput {
  py::object object;
  const T* data = nullptr;

  // False where it cannot be read as it lies.
  bool read(py::handle from, const ArrayShape& shape) {
    if (from.is_none()) return true;
    const PlainArray* const array = plain_array<T>(from);
    if (!array || !(shape == *array)) return false;
    object = py::reinterpret_borrow<py::object>(from);
    data = reinterpret_cast<const T*>(array->data);
    return true;
  }
};

// h alone, or of an LSTM a pair (h, c).
template <class T>
struct PlainState {
  PlainInput<T> h, c;

  bool read(const Network<T>& net, py::handle state, const Form& form) {
    const Config& config = net.config();
    if (!net.cell().has_cell_state || state.is_none()) return h.read(state, form.state(config.output()));
    if (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != 2) return false;
    return h.read(PyTuple_GET_ITEM(state.ptr(), 0), form.state(config.output())) &&
           c.read(PyTuple_GET_ITEM(state.ptr(), 1), form.state(config.hidden));
  }
};

template <class T>
py::object make_state(const Network<T>& net, const Form& form, T*& h, T*& c) {
  py::object first = result_array(form.state(net.config().output()), h);
  if (!net.cell().has_cell_state) return first;
  return py::make_tuple(std::move(first), result_array(form.state(net.config().hidden), c));
}

template <class T>
struct PlainPass {
  Sequence<T> call = {};
  PlainState<T> initial;
  bool batched = false;
  py::object y, state;
};

// False where an argument takes a closer look.
template <class T>
bool bind_pass(const Network<T>& net, py::handle input, py::handle state, bool batch_first, int threads,
               PlainPass<T>& pass) {
  const Config& c = net.config();
  const PlainArray* const x = plain_array<T>(input);
  if (!x || (x->nd != 2 && x->nd != 3) || x->dimensions[x->nd - 1] != c.input) return false;
  const bool batched = x->nd == 3, rows_first = batched && batch_first;
  const ssize_t outer = x->dimensions[0], inner = batched ? x->dimensions[1] : 1;
  const Form form = {batched, rows_first, rows_first ? inner : outer, rows_first ? outer : inner, c.sweeps()};
  if (outer < 1 || inner < 1 || form.steps > kMaxSteps || form.batch > kMaxBatch) return false;
  pass.batched = batched;
  Sequence<T>& s = pass.call;
  s.steps = form.steps, s.batch = int(form.batch);
  s.x = form.rows(reinterpret_cast<const T*>(x->data), c.input);
  if (!pass.initial.read(net, state, form)) return false;
  s.h0 = pass.initial.h.data, s.c0 = pass.initial.c.data;
  T* y = nullptr;
  pass.y = result_array(form.sequence(c.width()), y);
  s.y = form.rows(y, c.width());
  pass.state = make_state(net, form, s.hn, s.cn);
  s.threads = threads_of(threads);
  return true;
}

template <class T>
py::object backward_pass(const Network<T>& net, const Tape<T>& tape, Form form, py::handle dy, py::handle dstate,
                         int threads, bool input_grad, py::handle step_norms) {
  const Config& c = net.config();
  PlainInput<T> output;
  PlainState<T> final;
  if (!output.read(dy, form.sequence(c.width())) || !final.read(net, dstate, form)) return py::none();
  Gradients<T> g = {};
  if (output.data) g.dy = form.rows(output.data, c.width());
  g.dh = final.h.data, g.dc = final.c.data;
  g.step_norms = writable<double>(step_norms, "step_norms", {form.sweeps, form.steps, form.batch});
  if ((!output.data && !g.dh && !g.dc) || form.steps < 1 || form.batch < 1) return py::none();
  T* data = nullptr;
  py::object dx = py::none();
  if (input_grad) {
    dx = result_array(form.sequence(c.input), data);
    g.dx = form.rows(data, c.input);
  }
  py::object dstate0 = make_state(net, form, g.dh0, g.dc0);
  std::vector<T*> pointers;
  py::list weights;
  each_weight(c, net.cell().gates, [&](ssize_t rows, ssize_t columns) {
    weights.append(result_array(columns ? ArrayShape{2, {rows, columns}} : ArrayShape{1, {rows}}, data));
    pointers.push_back(data);
  });
  g.weights = pointers.data(), g.threads = threads_of(threads);
  {
    const Unlocked unlocked;
    net.backward(tape, g);
  }
  return py::make_tuple(std::move(dx), std::move(dstate0), std::move(weights));
}

}  // namespace

py::object plain_call(const AnyNetwork& any, py::handle x, py::handle state, bool batch_first, int threads) {
  check_packed(any);
  age_results();
  return std::visit(
      [&](const auto& net) -> py::object {
        using T = element_of<decltype(net)>;
        PlainPass<T> pass;
        if (!bind_pass(*net, x, state, batch_first, threads, pass)) return py::none();
        {
          const Unlocked unlocked;
          net->run(pass.call);
        }
        return py::make_tuple(std::move(pass.y), std::move(pass.state));
      },
      any.network);
}

py::object plain_forward(const std::shared_ptr<AnyNetwork>& any, py::handle x, py::handle state, bool batch_first,
                         int threads) {
  check_packed(*any);
  return std::visit(
      [&](const auto& net) -> py::object {
        using T = element_of<decltype(net)>;
        PlainPass<T> pass;
        if (!bind_pass(*net, x, state, batch_first, threads, pass)) return py::none();
        AnyTape tape;
        tape.network = any, tape.batched = pass.batched, tape.batch_first = pass.batched && batch_first;
        tape.arrays = {py::reinterpret_borrow<py::object>(x), pass.y};
        {
          const Unlocked unlocked;
          tape.tape = net->forward(pass.call);
        }
        py::detail::array_proxy(pass.y.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
        return py::make_tuple(std::move(pass.y), std::move(pass.state), std::move(tape));
      },
      any->network);
}

py::object plain_backward(const AnyNetwork& any, const AnyTape& tape, py::handle dy, py::handle dstate, int threads,
                          bool input_grad, py::handle step_norms) {
  check_packed(any);
  check_tape(any, tape);
  const RowOrder& order = tape.order();
  const Form form = {tape.batched, tape.batch_first, order.steps(), order.batch(), any.config().sweeps()};
  return std::visit(
      [&](const auto& kept) {
        using T = element_of<decltype(kept)>;
        const auto& net = *std::get<std::shared_ptr<Network<T>>>(any.network);
        return backward_pass(net, *kept, form, dy, dstate, threads, input_grad, step_norms);
      },
      tape.tape);
}

}  // namespace fastrnn
