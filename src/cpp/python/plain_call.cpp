// Calls as most calls are: arrays that can be read as they lie, no lengths, no dropout. Everything is checked and made here;
// bound in Python, argument by argument, LSTM T10 B1 H32 takes 5.5 us instead of 4.1, and a step of its training 33.6 instead
// of 23.5.
#include <climits>

#include "python/bind.h"
#include "python/results.h"

namespace fastrnn {
namespace {

// How a caller lays out sequences and states.
struct Form {
  bool batched, rows_first;
  ssize_t steps, batch, parts;

  ArrayShape sequence(ssize_t width) const {
    if (!batched) return {2, {steps, width}};
    return rows_first ? ArrayShape{3, {batch, steps, width}} : ArrayShape{3, {steps, batch, width}};
  }
  ArrayShape state(ssize_t size) const {
    return batched ? ArrayShape{3, {parts, batch, size}} : ArrayShape{2, {parts, size}};
  }
  template <class T>
  Rows<T> rows(T* data, ptrdiff_t width) const {
    return {data, rows_first ? width : batch * width, rows_first ? steps * width : width};
  }
};

// Null for None; false where it cannot be read as it lies.
template <class T>
bool read(py::handle object, const ArrayShape& shape, const T*& data) {
  if (object.is_none()) return true;
  const PlainArray* const array = plain_array<T>(object);
  if (!array || !(shape == *array)) return false;
  data = reinterpret_cast<const T*>(array->data);
  return true;
}

// h alone, or of an LSTM a pair (h, c).
template <class T>
bool read_state(const Network<T>& net, py::handle state, const Form& form, const T*& h, const T*& c) {
  const Config& config = net.config();
  if (!net.cell().has_cell_state || state.is_none()) return read(state, form.state(config.output()), h);
  if (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != 2) return false;
  return read(PyTuple_GET_ITEM(state.ptr(), 0), form.state(config.output()), h) &&
         read(PyTuple_GET_ITEM(state.ptr(), 1), form.state(config.hidden), c);
}

template <class T>
py::object make_state(const Network<T>& net, const Form& form, T*& h, T*& c) {
  py::object first = fresh_array(form.state(net.config().output()), h);
  if (!net.cell().has_cell_state) return first;
  return py::make_tuple(std::move(first), fresh_array(form.state(net.config().hidden), c));
}

template <class T>
struct PlainPass {
  Sequence<T> call = {};
  py::object y, state;
};

// False where an argument takes a closer look. make(shape, data): how y is allocated.
template <class T, class Make>
bool bind(const Network<T>& net, py::handle input, py::handle state, bool batch_first, int threads, Make make,
          PlainPass<T>& pass) {
  const Config& c = net.config();
  const PlainArray* const x = plain_array<T>(input);
  if (!x || (x->nd != 2 && x->nd != 3) || x->dimensions[x->nd - 1] != c.input) return false;
  const bool batched = x->nd == 3, rows_first = batched && batch_first;
  const ssize_t outer = x->dimensions[0], inner = batched ? x->dimensions[1] : 1;
  if (outer < 1 || inner < 1 || outer > INT_MAX || inner > INT_MAX) return false;
  const Form form = {batched, rows_first, rows_first ? inner : outer, rows_first ? outer : inner, c.parts()};
  Sequence<T>& s = pass.call;
  s.steps = form.steps, s.batch = int(form.batch);
  s.x = form.rows(reinterpret_cast<const T*>(x->data), c.input);
  if (!read_state(net, state, form, s.h0, s.c0)) return false;
  T* y = nullptr;
  pass.y = make(form.sequence(c.width()), y);
  s.y = form.rows(y, c.width());
  pass.state = make_state(net, form, s.hn, s.cn);
  s.threads = threads_of(threads);
  return true;
}

template <class T>
py::object backward(const Network<T>& net, const Tape<T>& tape, Form form, py::handle dy, py::handle dstate,
                    int threads) {
  const Config& c = net.config();
  Gradients<T> g = {};
  const T* upstream = nullptr;
  if (!read(dy, form.sequence(c.width()), upstream) || !read_state(net, dstate, form, g.dh, g.dc)) return py::none();
  if ((!upstream && !g.dh && !g.dc) || form.steps < 1 || form.batch < 1) return py::none();
  if (upstream) g.dy = form.rows(upstream, c.width());
  T* data = nullptr;
  py::object dx = result_array(form.sequence(c.input), data);
  g.dx = form.rows(data, c.input);
  py::object dstate0 = make_state(net, form, g.dh0, g.dc0);
  std::vector<T*> pointers;
  py::list weights;
  each_weight(c, net.cell().gates, [&](ssize_t rows, ssize_t columns) {
    weights.append(result_array(columns ? ArrayShape{2, {rows, columns}} : ArrayShape{1, {rows}}, data));
    pointers.push_back(data);
  });
  g.weights = pointers.data(), g.threads = threads_of(threads);
  {
    const py::gil_scoped_release release;
    net.backward(tape, g);
  }
  return py::make_tuple(std::move(dx), std::move(dstate0), std::move(weights));
}

}  // namespace

py::object plain_call(const AnyNetwork& any, py::handle x, py::handle state, bool batch_first, int threads) {
  check_packed(any);
  return std::visit(
      [&](const auto& net) -> py::object {
        using T = element_of<decltype(net)>;
        PlainPass<T> pass;
        // Alone, y gets the same pages again from malloc, which training's many arrays do not.
        if (!bind(*net, x, state, batch_first, threads, fresh_array<T>, pass)) return py::none();
        {
          const py::gil_scoped_release release;
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
        if (!bind(*net, x, state, batch_first, threads, result_array<T>, pass)) return py::none();
        AnyTape tape;
        tape.network = any;
        tape.arrays = {py::reinterpret_borrow<py::object>(x), pass.y};
        {
          const py::gil_scoped_release release;
          tape.tape = net->forward(pass.call);
        }
        py::detail::array_proxy(pass.y.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
        return py::make_tuple(std::move(pass.y), std::move(pass.state), std::move(tape));
      },
      any->network);
}

py::object plain_backward(const AnyNetwork& any, const AnyTape& tape, py::handle dy, py::handle dstate, bool batched,
                          bool batch_first, int threads) {
  check_packed(any);
  check_tape(any, tape);
  const RowOrder& order = tape.order();
  const Form form = {batched, batched && batch_first, order.steps(), order.batch(), any.config().parts()};
  return std::visit(
      [&](const auto& kept) {
        using T = element_of<decltype(kept)>;
        return backward(*std::get<std::shared_ptr<Network<T>>>(any.network), *kept, form, dy, dstate, threads);
      },
      tape.tape);
}

}  // namespace fastrnn
