#include "tests/problem.h"

#include "network/dropout.h"

namespace fastrnn::tests {
namespace {

template <class T>
std::vector<T> draw(size_t n, uint64_t seed, double scale) {
  std::vector<T> values(n);
  for (size_t i = 0; i < n; ++i) {
    values[i] = T((double(hash(seed * 1000003 + i) >> 41) * 0x1p-22 - 1) * scale);  // exact in float
  }
  return values;
}

}  // namespace

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {"rnn_tanh", {Cell::rnn_tanh, 3, 17, 1, true, false, 0}, 9, 5, false},
      {"rnn_relu", {Cell::rnn_relu, 4, 33, 2, false, true, 0}, 6, 7, true},
      {"lstm_one_row", {Cell::lstm, 1, 20, 1, true, false, 0}, 40, 1, false},
      {"lstm_ragged", {Cell::lstm, 13, 31, 2, true, true, 0}, 11, 9, true},
      {"lstm_projected", {Cell::lstm, 5, 24, 2, true, true, 7}, 8, 6, true},
      {"lstm_wide", {Cell::lstm, 64, 130, 1, true, false, 0}, 20, 2, false},
      {"gru_ragged", {Cell::gru, 7, 19, 2, true, true, 0}, 10, 8, true},
      {"gru_long_ragged", {Cell::gru, 32, 64, 1, true, false, 0}, 120, 9, true},
      {"gru_wide", {Cell::gru, 40, 144, 1, true, false, 0}, 24, 3, false},
      // A row's blocks in pairs with AVX-512: one, and in float64 a block and a half behind it (H 28); the same in
      // float32 (H 56, whose weights fit a cache by the projection alone); two pairs; W x not hoisted.
      {"lstm_pair", {Cell::lstm, 3, 28, 1, true, false, 0}, 7, 1, false},
      {"gru_pair", {Cell::gru, 2, 28, 1, true, false, 0}, 7, 1, false},
      {"lstm_pair_and_half", {Cell::lstm, 2, 56, 1, true, false, 5}, 6, 1, false},
      {"gru_two_pairs", {Cell::gru, 3, 64, 1, true, false, 0}, 9, 1, false},
      {"lstm_one_step", {Cell::lstm, 1, 28, 1, true, false, 0}, 1, 1, false},
      {"gru_one_step", {Cell::gru, 2, 28, 1, true, false, 0}, 1, 1, false},
  };
  return all;
}

template <class T>
Problem<T>::Problem(const Shape& s, double gain) : shape(s) {
  const Config& c = s.config;
  const int gates = cell().gates;
  const size_t rows = size_t(gates * c.hidden);
  uint64_t seed = 1;
  for (int sweep = 0; sweep < c.sweeps(); ++sweep) {
    weights.push_back(draw<T>(rows * size_t(c.input_of(c.layer_of(sweep))), seed++, gain));
    weights.push_back(draw<T>(rows * size_t(c.output()), seed++, gain));
    for (int i = 0; c.bias && i < 2; ++i) weights.push_back(draw<T>(rows, seed++, gain));
    if (c.projection) weights.push_back(draw<T>(size_t(c.projection * c.hidden), seed++, gain));
  }
  for (auto& w : weights) dweights.emplace_back(w.size());
  for (auto& w : weights) weight_pointers.push_back(w.data());
  for (auto& w : dweights) dweight_pointers.push_back(w.data());
  const size_t sequence = size_t(s.steps) * size_t(s.batch), state = size_t(c.sweeps() * s.batch);
  x = draw<T>(sequence * size_t(c.input), 101, 1);
  dy = draw<T>(sequence * size_t(c.width()), 102, 1);
  h0 = draw<T>(state * size_t(c.output()), 103, 1), dh = draw<T>(h0.size(), 104, 1);
  c0 = draw<T>(state * size_t(c.hidden), 105, 1), dc = draw<T>(c0.size(), 106, 1);
  y.resize(dy.size()), dx.resize(x.size()), hn.resize(h0.size()), cn.resize(c0.size());
  dh0.resize(h0.size()), dc0.resize(c0.size()), norms.resize(size_t(c.sweeps()) * sequence);
  for (int i = 0; s.ragged && i < s.batch; ++i) lengths.push_back(int64_t(hash(uint64_t(i)) % uint64_t(s.steps + 1)));
}

template <class T>
std::unique_ptr<Network<T>> Problem<T>::network(const Backend& backend, const Core* core) const {
  auto net = std::make_unique<Network<T>>(shape.config, backend, core);
  net->pack(weight_pointers.data());
  return net;
}

template <class T>
Sequence<T> Problem<T>::sequence(int threads) {
  const Config& c = shape.config;
  const bool has_c = cell().has_cell_state;
  return {shape.steps,
          shape.batch,
          shape.ragged ? lengths.data() : nullptr,
          {x.data(), ptrdiff_t(shape.batch) * c.input, c.input},
          h0.data(),
          has_c ? c0.data() : nullptr,
          {y.data(), ptrdiff_t(shape.batch) * c.width(), c.width()},
          hn.data(),
          has_c ? cn.data() : nullptr,
          0.0,
          0,
          threads};
}

template <class T>
Gradients<T> Problem<T>::gradients(int threads) {
  const Config& c = shape.config;
  const bool has_c = cell().has_cell_state;
  return {{dy.data(), ptrdiff_t(shape.batch) * c.width(), c.width()},
          dh.data(),
          has_c ? dc.data() : nullptr,
          {dx.data(), ptrdiff_t(shape.batch) * c.input, c.input},
          dh0.data(),
          has_c ? dc0.data() : nullptr,
          dweight_pointers.data(),
          norms.data(),
          threads};
}

template <class T>
uint64_t hash_of(const std::vector<T>& values, uint64_t seed) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(T); ++i) seed = (seed ^ bytes[i]) * 1099511628211u;
  return seed;
}

template <class T>
uint64_t results_hash(const Problem<T>& p) {
  uint64_t h = hash_of(p.y);
  for (const auto* part : {&p.hn, &p.cn, &p.dx, &p.dh0, &p.dc0}) h = hash_of(*part, h);
  for (const auto& w : p.dweights) h = hash_of(w, h);
  return hash_of(p.norms, h);
}

template <class T>
uint64_t pass_hash(const Shape& shape, const Backend& backend, int threads, double gain, const Core* core) {
  Problem<T> p(shape, gain);
  const auto net = p.network(backend, core);
  const auto tape = net->forward(p.sequence(threads));
  if (!shape.forward_only) net->backward(*tape, p.gradients(threads));
  return results_hash(p);
}

std::vector<const Backend*> usable_backends() {
  const std::string before = current_backend().name;
  std::vector<const Backend*> backends;
  for (const std::string& name : usable_isas()) {
    set_isa(name);
    backends.push_back(&current_backend());
  }
  set_isa(before);
  return backends;
}

template struct Problem<float>;
template struct Problem<double>;
template uint64_t hash_of(const std::vector<float>&, uint64_t);
template uint64_t hash_of(const std::vector<double>&, uint64_t);
template uint64_t results_hash(const Problem<float>&);
template uint64_t results_hash(const Problem<double>&);
template uint64_t pass_hash<float>(const Shape&, const Backend&, int, double, const Core*);
template uint64_t pass_hash<double>(const Shape&, const Backend&, int, double, const Core*);

}  // namespace fastrnn::tests
