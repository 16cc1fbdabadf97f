// What fastrnn.torch calls: weights that are somebody else's, arrays as addresses, the tape in a tensor. Private: the
// caller has checked shapes, dtypes, strides and that everything lives. Strides count elements; an address of 0 is null.
#include <array>
#include <variant>

#include "network/follower.h"
#include "python/arrays.h"
#include "python/bind.h"
#include "registry.h"

namespace fastrnn {
namespace {

using Address = uintptr_t;

struct AnyFollower {
  explicit AnyFollower(const Config& c) : config(c) {}

  template <class T>
  Follower<T>& of() {
    if constexpr (sizeof(T) == 4) {
      return f32;
    } else {
      return f64;
    }
  }

  Config config;
  Follower<float> f32;
  Follower<double> f64;
};

// A sequence: address, elements from step to step and from row to row; of a packed one address, rows, nothing.
using View = std::array<ptrdiff_t, 3>;

View view_of(const py::tuple& t) { return {t[0].cast<ptrdiff_t>(), t[1].cast<ptrdiff_t>(), t[2].cast<ptrdiff_t>()}; }

template <class T>
T* at(Address a) {
  return reinterpret_cast<T*>(a);
}

// Arguments that forward and backward share.
struct Call {
  bool is_double;
  py::tuple weights;  // addresses, as in Network::pack
  int64_t steps, batch;
  Address batch_sizes;  // int64 [T] of a packed sequence, or 0
  View x, y;
  double dropout;
  uint64_t seed;
  int threads;
};

// (is_double, weights, T, B, batch_sizes, x, y, dropout, seed, threads)
Call call_of(const py::tuple& t) {
  Call c = {
      t[0].cast<bool>(), py::tuple(t[1]), t[2].cast<int64_t>(), t[3].cast<int64_t>(),  t[4].cast<Address>(),
      view_of(t[5]),     view_of(t[6]),   t[7].cast<double>(),  t[8].cast<uint64_t>(), threads_of(t[9].cast<int>())};
  if (c.steps > INT32_MAX || c.batch > INT32_MAX) throw py::value_error("input: more than 2147483647 steps or rows");
  return c;
}

template <class T>
std::vector<T*> addresses(const py::tuple& t) {
  std::vector<T*> pointers;
  pointers.reserve(t.size());
  for (const py::handle a : t) pointers.push_back(at<T>(a.cast<Address>()));
  return pointers;
}

// Lengths of a packed sequence's rows; an error where the sizes are none of packed rows.
std::vector<int64_t> lengths_of(const Call& call) {
  const int64_t* const sizes = at<const int64_t>(call.batch_sizes);
  std::vector<int64_t> lengths(size_t(call.batch), 0);
  int64_t last = call.batch, rows = 0;
  for (int64_t t = 0; t < call.steps; ++t) {
    if (sizes[t] < 1 || sizes[t] > last) {
      throw py::value_error("batch_sizes: expected values from " + std::to_string(call.batch) +
                            " downwards to 1, got " + std::to_string(sizes[t]) + " at step " + std::to_string(t));
    }
    last = sizes[t], rows += last;
    for (int64_t row = 0; row < last; ++row) ++lengths[size_t(row)];
  }
  if (rows != call.x[1]) {
    throw py::value_error("batch_sizes: expected a sum of " + std::to_string(call.x[1]) + ", the rows of data, got " +
                          std::to_string(rows));
  }
  return lengths;
}

template <class T>
struct Bound {
  Sequence<T> sequence;
  std::vector<T*> weights;
  std::vector<int64_t> lengths;
};

template <class T>
Rows<T> rows_at(const View& v, bool packed, int width) {
  return {at<T>(Address(v[0])), v[1], packed ? width : v[2], packed};
}

template <class T>
Bound<T> bind(const AnyFollower& any, const Call& call) {
  Bound<T> b = {{}, addresses<T>(call.weights), {}};
  const bool packed = call.batch_sizes != 0;
  if (packed) b.lengths = lengths_of(call);
  Sequence<T>& s = b.sequence;
  s.steps = call.steps, s.batch = int(call.batch), s.lengths = packed ? b.lengths.data() : nullptr;
  s.x = rows_at<const T>(call.x, packed, any.config.input);
  s.y = rows_at<T>(call.y, packed, any.config.width());
  s.dropout = call.dropout, s.seed = call.seed, s.threads = call.threads, s.regions = true;
  return b;
}

template <class T>
std::shared_ptr<const Network<T>> followed(AnyFollower& any, const Backend& backend, const std::vector<T*>& weights,
                                           int threads) {
  if (weights.size() != size_t(any.config.parts()) * size_t(any.config.weights_per_part()))
    throw std::invalid_argument("weights: wrong number");
  return any.of<T>().follow(any.config, backend, weights.data(), threads);
}

template <class T>
void check_reserve(const Network<T>& net, const Sequence<T>& s, Address reserve, size_t bytes) {
  const size_t needed = net.reserve_bytes(s);
  if (reserve % kAlign || bytes < needed) {
    throw std::invalid_argument("reserve: expected " + std::to_string(needed) + " bytes at a multiple of " +
                                std::to_string(kAlign) + ", got " + std::to_string(bytes) + " at " +
                                std::to_string(reserve % kAlign) + " past one");
  }
}

// The network of a pass forward, packed for backward too: it keeps what the weights were.
struct Lease {
  std::variant<std::shared_ptr<const Network<float>>, std::shared_ptr<const Network<double>>> network;
};

template <class T>
std::unique_ptr<Lease> forward(AnyFollower& any, const Call& call, const py::tuple& states, Address reserve,
                               size_t bytes) {
  Bound<T> b = bind<T>(any, call);
  Sequence<T>& s = b.sequence;
  s.h0 = at<const T>(states[0].cast<Address>()), s.c0 = at<const T>(states[1].cast<Address>());
  s.hn = at<T>(states[2].cast<Address>()), s.cn = at<T>(states[3].cast<Address>());
  const Backend& backend = current_backend();
  const py::gil_scoped_release release;
  const auto net = followed(any, backend, b.weights, s.threads);
  if (!bytes) {
    net->run(s);
    return nullptr;
  }
  check_reserve(*net, s, reserve, bytes);
  net->pack_backward(s.threads);
  net->forward(s, at<char>(reserve));
  return std::make_unique<Lease>(Lease{net});
}

template <class T>
void backward(AnyFollower& any, const Call& call, const py::tuple& upstream, const py::tuple& wanted, Address reserve,
              size_t bytes, const Lease* lease) {
  Bound<T> b = bind<T>(any, call);
  const bool packed = call.batch_sizes != 0;
  Gradients<T> g = {};
  g.dy = rows_at<const T>(view_of(upstream[0]), packed, any.config.width());
  g.dh = at<const T>(upstream[1].cast<Address>()), g.dc = at<const T>(upstream[2].cast<Address>());
  g.dx = rows_at<T>(view_of(wanted[0]), packed, any.config.input);
  g.dh0 = at<T>(wanted[1].cast<Address>()), g.dc0 = at<T>(wanted[2].cast<Address>());
  const std::vector<T*> weights = addresses<T>(wanted[3]);
  g.weights = weights.empty() ? nullptr : weights.data();
  g.threads = call.threads;
  const Backend& backend = current_backend();
  const py::gil_scoped_release release;
  const auto net = lease ? std::get<std::shared_ptr<const Network<T>>>(lease->network)
                         : followed(any, backend, b.weights, g.threads);
  check_reserve(*net, b.sequence, reserve, bytes);
  net->backward(b.sequence, at<const char>(reserve), g);
}

}  // namespace

void bind_follower(py::module_& m) {
  py::class_<Lease>(m, "Lease");
  py::class_<AnyFollower>(m, "Follower")
      .def(py::init([](const std::string& cell, int input, int hidden, int layers, bool bias, bool bidirectional,
                       int projection) {
        return std::make_unique<AnyFollower>(
            checked_config(cell, input, hidden, layers, bias, bidirectional, projection));
      }))
      .def("forward",
           [](AnyFollower& any, const py::tuple& t, const py::tuple& states, Address reserve, size_t bytes) {
             const Call call = call_of(t);
             return call.is_double ? forward<double>(any, call, states, reserve, bytes)
                                   : forward<float>(any, call, states, reserve, bytes);
           })
      .def("backward",
           [](AnyFollower& any, const py::tuple& t, const py::tuple& upstream, const py::tuple& wanted, Address reserve,
              size_t bytes, const Lease* lease) {
             const Call call = call_of(t);
             call.is_double ? backward<double>(any, call, upstream, wanted, reserve, bytes, lease)
                            : backward<float>(any, call, upstream, wanted, reserve, bytes, lease);
           })
      .def_property_readonly("packings",
                             [](const AnyFollower& any) { return any.f32.packings() + any.f64.packings(); });
  m.def("fingerprint", [](Address data, size_t bytes) { return current_backend().fingerprint(at<char>(data), bytes); });
}

}  // namespace fastrnn
