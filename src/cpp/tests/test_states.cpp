// States are read and written where the caller keeps them: final ones over initial ones, however rows or units are
// shared out, and however short a row is.

#include "tests/api_check.h"

namespace fastrnn::tests {
namespace {

constexpr int kInputs = 5;

template <class T>
struct Pass {
  std::vector<T> y, h, c;
};

// One pass. Final states apart from the initial ones, or over them.
template <class T>
Pass<T> run(const Layer<T>& layer, int steps, int batch, const int64_t* lengths, int threads, bool given,
            bool in_place) {
  const Config config = layer.config();
  const bool lstm = config.cell == Cell::lstm;
  const int width = config.output_size() * config.directions();
  const size_t states = size_t(config.num_layers * config.directions() * batch);
  const auto x = draw<T>(size_t(steps * batch * kInputs), 3);
  const auto h0 = draw<T>(states * size_t(config.output_size()), 4);
  const auto c0 = draw<T>(lstm ? states * size_t(config.hidden_size) : 0, 5);
  Pass<T> p;
  p.y.assign(size_t(steps * batch * width), T(77));
  p.h.assign(h0.size(), T(77)), p.c.assign(c0.size(), T(77));
  if (given && in_place) p.h = h0, p.c = c0;
  Sequence<T> call;
  call.steps = steps, call.batch = batch, call.lengths = lengths, call.threads = threads;
  call.x = x.data(), call.x_step = ptrdiff_t(batch) * kInputs, call.x_row = kInputs;
  call.y = p.y.data(), call.y_step = ptrdiff_t(batch) * width, call.y_row = width;
  if (given) call.h0 = in_place ? p.h.data() : h0.data();
  if (given && lstm) call.c0 = in_place ? p.c.data() : c0.data();
  call.hn = p.h.data(), call.cn = lstm ? p.c.data() : nullptr;
  required(layer.run(call));
  return p;
}

template <class T>
void states_in_place(const Config& config, int steps, int batch) {
  const Layer<T> layer = ready_layer<T>(config);
  std::vector<int64_t> lengths;
  for (int row = 0; row < batch; ++row) lengths.push_back((row * 5 + 2) % (steps + 1));
  for (const int64_t* ends : {static_cast<const int64_t*>(nullptr), static_cast<const int64_t*>(lengths.data())}) {
    for (const bool given : {false, true}) {
      const Pass<T> apart = run(layer, steps, batch, ends, 1, given, false);
      for (const int threads : {1, 2, 4}) {
        for (const bool in_place : {false, true}) {
          const Pass<T> other = run(layer, steps, batch, ends, threads, given, in_place);
          CHECK(equal_bits(other.y, apart.y) && equal_bits(other.h, apart.h) && equal_bits(other.c, apart.c),
                "cell %d, H %d, T %d, B %d, %s, %s, %d threads: states %s", int(config.cell), config.hidden_size, steps,
                batch, ends ? "ragged" : "whole", given ? "given" : "zeros", threads, in_place ? "in place" : "apart");
        }
      }
    }
  }
}

// A row of no steps keeps its state, and zeros where none was given.
template <class T>
void empty_rows_keep_theirs(const Config& config) {
  const Layer<T> layer = ready_layer<T>(config);
  const bool lstm = config.cell == Cell::lstm;
  const int64_t none[2] = {0, 0};
  for (const bool given : {false, true}) {
    const Pass<T> p = run(layer, 3, 2, none, 2, given, false);
    const auto h0 = draw<T>(p.h.size(), 4), c0 = draw<T>(p.c.size(), 5), zeros = std::vector<T>(p.h.size());
    CHECK(equal_bits(p.h, given ? h0 : zeros), "cell %d: h of rows without a step", int(config.cell));
    const auto no_c = std::vector<T>(p.c.size());
    CHECK(!lstm || equal_bits(p.c, given ? c0 : no_c), "c of rows without a step");
  }
}

}  // namespace

void test_states() {
  // Rows of whole vectors and others; few units, which share rows out, and many, which are shared out themselves.
  const Config configs[] = {
      config_of(Cell::lstm, kInputs, 32),       config_of(Cell::lstm, kInputs, 20, 2),
      config_of(Cell::lstm, kInputs, 160),      config_of(Cell::lstm, kInputs, 150, 1, 0, true),
      config_of(Cell::lstm, kInputs, 48, 1, 7), config_of(Cell::gru, kInputs, 32),
      config_of(Cell::gru, kInputs, 150, 2),    config_of(Cell::rnn_tanh, kInputs, 37, 1, 0, true),
  };
  for (const Config& config : configs) {
    for (const int batch : {1, 3, 70}) {
      for (const int steps : {1, 5}) states_in_place<float>(config, steps, batch);
    }
    states_in_place<double>(config, 5, 3);
    empty_rows_keep_theirs<float>(config);
  }
}

}  // namespace fastrnn::tests
