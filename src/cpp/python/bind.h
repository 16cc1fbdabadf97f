// The bindings, one function a class; module.cpp calls them.
//
// A pass comes in by one of three ways, each of which checks whatever it is given:
// - plain_call.cpp: arrays that are read as they lie, without lengths and dropout. None is returned for all others.
// - bind_network.cpp: what Python then made of them (fastrnn/_binding.py): sequences [T, B, n] of any strides, arrays
//   for the results, lengths, dropout.
// - bind_follower.cpp: tensors of torch, and weights that are somebody else's.
// Steps come in by bind_stream.cpp and bind_pool.cpp, products by bind_dense.cpp.
#pragma once

#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "network/network.h"

namespace fastrnn {

void bind_network(pybind11::module_& m);
void bind_dense(pybind11::module_& m);
void bind_optim(pybind11::module_& m);
void bind_pool(pybind11::module_& m);
void bind_follower(pybind11::module_& m);
void bind_stream(pybind11::module_& m);
void bind_probe(pybind11::module_& m);

// What Python may call before __init__ has run, or after it has failed: pybind11 then hands out memory that nobody has
// constructed. All zeros, that is an object of null pointers, which `need_made` refuses.
struct Zeroed {
  static void* operator new(size_t bytes) { return std::memset(::operator new(bytes), 0, bytes); }
  static void operator delete(void* memory) { ::operator delete(memory); }
};

inline void need_made(bool made, const char* what) {
  if (!made) throw std::runtime_error(std::string(what) + ": was never initialised");
}

// The same of a stream or a pool, which has a network then and says in `kWhat` what it is.
template <class Any>
Any& check_made(Any& any) {
  need_made(any.network != nullptr, Any::kWhat);
  return any;
}

// visit(pointer) for the one of `pointers` that there is.
template <class Pointers, class Visit>
auto visit_made(const Pointers& pointers, const char* what, Visit visit) {
  return std::visit(
      [&](const auto& pointer) {
        need_made(pointer != nullptr, what);
        return visit(pointer);
      },
      pointers);
}

// A network of either precision, and the arrays its next packing for backward will read.
struct AnyNetwork : Zeroed {
  std::variant<std::shared_ptr<Network<float>>, std::shared_ptr<Network<double>>> network;
  std::vector<pybind11::object> weights;
  // Copies of them from before they were edited, once there are streams that may be pickled later.
  std::vector<pybind11::object> frozen;

  const Config& config() const {
    return *visit_made(network, "network", [](const auto& n) { return &n->config(); });
  }
  const char* dtype() const { return network.index() ? "float64" : "float32"; }
};

// What a pass forward leaves for the pass back.
struct AnyTape : Zeroed {
  std::variant<std::unique_ptr<Tape<float>>, std::unique_ptr<Tape<double>>> tape;
  std::shared_ptr<AnyNetwork> network;
  std::vector<pybind11::object> arrays;      // x and y: the tape refers to them
  bool batched = true, batch_first = false;  // how the caller laid them out

  const RowOrder& order() const {
    return *visit_made(tape, "tape", [](const auto& t) { return &t->order; });
  }
  size_t nbytes() const {
    return visit_made(tape, "tape", [](const auto& t) { return t->bytes(); });
  }
};

// Whole passes whose results are made here: (y, final state); the same and a tape, y then read-only; (dx, gradient of
// the initial state, [those of the weights]), dx being None without input_grad, and step_norms [L * D, T, B] or None to
// be filled. None for arguments that take a closer look: a copy, or an error.
pybind11::object plain_call(const AnyNetwork& any, pybind11::handle x, pybind11::handle state, bool batch_first,
                            int threads);
pybind11::object plain_forward(const std::shared_ptr<AnyNetwork>& any, pybind11::handle x, pybind11::handle state,
                               bool batch_first, int threads);
pybind11::object plain_backward(const AnyNetwork& any, const AnyTape& tape, pybind11::handle dy,
                                pybind11::handle dstate, int threads, bool input_grad, pybind11::handle step_norms);

// The plan of each layer for `steps` of `batch` rows, by the model of plan/plan.h, not by running anything.
pybind11::dict explain(const AnyNetwork& any, int64_t steps, int batch, bool training, int threads);

// Refuses a network that was never packed.
void check_packed(const AnyNetwork& any);

// Refuses a tape of another network.
void check_tape(const AnyNetwork& any, const AnyTape& tape);

// Refuses a network that cannot be streamed.
void check_streams(const AnyNetwork& any);

// T of a pointer to a Network<T>, a Tape<T> or a Dense<T>.
template <template <class> class Typed, class T>
T element_in(const Typed<T>&);
template <class Pointer>
using element_of = decltype(element_in(*std::declval<Pointer>()));

// visit(T{}) for the dtype that a caller names.
template <class Visit>
auto with_dtype(const std::string& name, Visit visit) {
  if (name == "float32") return visit(float{});
  if (name == "float64") return visit(double{});
  throw pybind11::value_error("dtype: expected float32 or float64, got '" + name + "'");
}

}  // namespace fastrnn
