// The public API: streams and sequences agree to the bit, strides and lengths are kept, gradients are differences.
#include <cmath>
#include <cstring>
#include <thread>

#include "tests/api_check.h"

namespace fastrnn::tests {
namespace {

constexpr int kSteps = 12, kBatch = 3;

const Config kConfigs[] = {
    config_of(Cell::rnn_tanh, 3, 17, 2),
    config_of(Cell::rnn_relu, 4, 9, 1, 0, false, false),
    config_of(Cell::lstm, 1, 20),
    config_of(Cell::lstm, 5, 24, 2, 7),
    config_of(Cell::gru, 7, 19, 3),
    config_of(Cell::lstm, 6, 10, 2, 0, true),
    config_of(Cell::gru, 64, 130, 1, 0, false),
};

template <class T>
struct Run {
  Run(const Layer<T>& layer, int batch = kBatch, bool batch_first = false) : config(layer.config()) {
    const int width = config.output_size() * config.directions();
    const size_t rows = size_t(kSteps * batch), states = size_t(config.num_layers * config.directions() * batch);
    x = draw<T>(rows * size_t(config.input_size), 100), y.assign(rows * size_t(width), T(77));
    h0 = draw<T>(states * size_t(config.output_size()), 101), c0 = draw<T>(states * size_t(config.hidden_size), 102);
    hn.resize(h0.size()), cn.resize(c0.size());
    call.steps = kSteps, call.batch = batch;
    call.x = x.data(), call.y = y.data();
    call.x_step = config.input_size, call.x_row = ptrdiff_t(kSteps) * config.input_size;
    call.y_step = width, call.y_row = ptrdiff_t(kSteps) * width;
    if (!batch_first) call.x_step *= batch, call.x_row = config.input_size, call.y_step *= batch, call.y_row = width;
    const bool lstm = config.cell == Cell::lstm;
    call.h0 = h0.data(), call.hn = hn.data();
    call.c0 = lstm ? c0.data() : nullptr, call.cn = lstm ? cn.data() : nullptr;
  }

  Config config;
  std::vector<T> x, y, h0, c0, hn, cn;
  Sequence<T> call;
};

template <class T>
void stream_is_sequence(const Config& config) {
  const Layer<T> layer = ready_layer<T>(config);
  Run<T> all(layer);
  required(layer.run(all.call));
  if (config.bidirectional) {
    CHECK(!layer.stream(), "a bidirectional stream");
    return;
  }
  const bool lstm = config.cell == Cell::lstm;
  for (int threads = 1; threads <= 2; ++threads) {
    Stream<T> stream = required(layer.stream(kBatch, threads));
    T* const no_c = nullptr;
    CHECK(stream.set_state(all.h0.data(), lstm ? all.c0.data() : no_c) == Status::ok, "set_state");
    std::vector<T> y(all.y.size()), h(all.hn.size()), c(lstm ? all.cn.size() : 0);
    for (int t = 0; t < 5; ++t) {
      required(stream.step(all.x.data() + t * all.call.x_step, y.data() + t * all.call.y_step));
    }
    required(stream.process(kSteps - 5, all.x.data() + 5 * all.call.x_step, all.call.x_step, all.call.x_row,
                            y.data() + 5 * all.call.y_step, all.call.y_step, all.call.y_row));
    CHECK(equal_bits(y, all.y), "cell %d, %d threads: y of a stream", int(config.cell), threads);
    required(stream.get_state(h.data(), lstm ? c.data() : no_c));
    CHECK(equal_bits(h, all.hn) && (!lstm || equal_bits(c, all.cn)), "cell %d: state of a stream", int(config.cell));
  }
}

template <class T>
void layouts_and_threads(const Config& config) {
  const Layer<T> layer = ready_layer<T>(config);
  Run<T> all(layer);
  required(layer.run(all.call));
  Run<T> other = all;
  other.call.x = other.x.data(), other.call.y = other.y.data(), other.call.threads = 2;
  other.call.h0 = other.call.hn = other.h0.data();  // in place
  other.call.cn = nullptr;
  required(layer.run(other.call));
  CHECK(equal_bits(other.y, all.y) && equal_bits(other.h0, all.hn), "cell %d: threads, hn over h0", int(config.cell));
  Run<T> first(layer, 1, true), one(layer, 1);
  required(layer.run(first.call)), required(layer.run(one.call));
  CHECK(equal_bits(first.y, one.y), "cell %d: batch first", int(config.cell));
  const int64_t lengths[kBatch] = {kSteps, 0, 4};
  Run<T> ragged(layer);
  ragged.call.lengths = lengths;
  required(layer.run(ragged.call));
  const int width = config.output_size() * config.directions();
  bool zeros = true;
  for (int t = 0; t < kSteps; ++t) {
    for (int b = 0; b < kBatch; ++b) {
      const T* const y = ragged.y.data() + t * ragged.call.y_step + b * ragged.call.y_row;
      for (int j = 0; j < width && t >= lengths[b]; ++j) zeros = zeros && y[j] == 0;
    }
  }
  CHECK(zeros, "cell %d: zeros past a row's end", int(config.cell));
}

// sum(y * dy)
double loss(const Layer<double>& layer, Run<double>& run, const std::vector<double>& dy) {
  required(layer.run(run.call));
  double sum = 0;
  for (size_t i = 0; i < dy.size(); ++i) sum += run.y[i] * dy[i];
  return sum;
}

void near(double got, double expected, const char* what) {
  CHECK(std::abs(got - expected) <= 1e-6 * (1 + std::abs(expected)), "%s is %.9g, expected %.9g", what, got, expected);
}

void gradients_are_differences() {
  Layer<double> layer = ready_layer<double>(config_of(Cell::lstm, 3, 6, 2), 5, 0.4);
  Run<double> run(layer);
  const auto dy = draw<double>(run.y.size(), 7);
  const Tape tape = required(layer.forward(run.call));
  std::vector<std::vector<double>> dw;
  std::vector<double*> pointers;
  for (size_t i = 0; i < layer.count(); ++i) dw.emplace_back(required(layer.at(i)).bytes / sizeof(double));
  for (auto& w : dw) pointers.push_back(w.data());
  std::vector<double> dx(run.x.size()), dh0(run.h0.size());
  Gradients<double> g;
  g.dy = dy.data(), g.dy_step = run.call.y_step, g.dy_row = run.call.y_row;
  g.dx = dx.data(), g.dx_step = run.call.x_step, g.dx_row = run.call.x_row;
  g.dh0 = dh0.data(), g.weights = pointers.data();
  required(layer.backward(tape, g));
  const auto difference = [&](double& value, auto evaluate) {
    const double before = value, step = 1e-6;
    value = before + step;
    const double above = evaluate();
    value = before - step;
    const double below = evaluate();
    value = before;
    return (above - below) / (2 * step);
  };
  for (size_t i = 0; i < run.x.size(); i += 11) {
    near(dx[i], difference(run.x[i], [&] { return loss(layer, run, dy); }), "dx");
  }
  for (size_t i = 0; i < run.h0.size(); i += 5) {
    near(dh0[i], difference(run.h0[i], [&] { return loss(layer, run, dy); }), "dh0");
  }
  for (size_t w = 0; w < dw.size(); ++w) {
    const Tensor t = required(layer.at(w));
    std::vector<double> values(static_cast<const double*>(t.data), static_cast<const double*>(t.data) + dw[w].size());
    for (size_t i = 0; i < values.size(); i += 29) {
      const double expected = difference(values[i], [&] {
        required(layer.set(t.name, values.data(), values.size())), required(layer.prepare());
        return loss(layer, run, dy);
      });
      near(dw[w][i], expected, t.name);
    }
    required(layer.set(t.name, values.data(), values.size())), required(layer.prepare());
  }
  CHECK(!layer.backward(tape, g), "a tape of weights that have changed");
}

// However many share the layer's packed weights: a single one keeps them just as several do.
void streams_keep_their_weights(int count) {
  Layer<float> layer = ready_layer<float>(config_of(Cell::gru, 2, 5));
  std::vector<Stream<float>> streams;
  for (int i = 0; i < count; ++i) streams.push_back(required(layer.stream()));
  const float x[2] = {0.3F, -0.7F};
  float y[5], again[5], changed[5];
  required(streams.front().step(x, y));
  const std::vector<float> weights(30, 0.25F);
  required(layer.set("weight_ih_l0", weights.data(), weights.size()));
  CHECK(layer.stream().error().status() == Status::not_ready, "a stream of weights that are not prepared");
  required(layer.prepare());
  required(streams.front().reset());
  required(streams.back().step(x, again));
  required(required(layer.stream()).step(x, changed));
  CHECK(std::memcmp(y, again, sizeof y) == 0, "one of %d old streams keeps its weights", count);
  CHECK(std::memcmp(y, changed, sizeof y) != 0, "a new stream has the new ones");
  {
    const Layer<float> gone = std::move(layer);
  }
  required(streams.back().reset());
  required(streams.back().step(x, again));
  CHECK(std::memcmp(y, again, sizeof y) == 0, "reset, and a layer that is gone");
}

// Also when the layer is gone.
template <class T>
void streams_know_their_sizes() {
  const Config config = config_of(Cell::lstm, 3, 7, 2, 5, false, false);
  const Stream<T> stream = required(ready_layer<T>(config).stream(4));
  CHECK(stream.input_size() == 3 && stream.output_size() == 5 && stream.batch_size() == 4, "%d %d %d",
        int(stream.input_size()), int(stream.output_size()), int(stream.batch_size()));
  const Config found = stream.config();
  CHECK(found.cell == config.cell && found.input_size == 3 && found.hidden_size == 7 && found.num_layers == 2 &&
            found.proj_size == 5 && !found.bias && !found.bidirectional && int(found.dtype) == (sizeof(T) == 8),
        "its architecture");
}

// One row, of several blocks of units, each of which reads x.
void overlapping_row(int layers, int shift) {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::lstm, 40, 40, layers));
  Stream<float> apart = required(layer.stream()), over = required(layer.stream());
  const auto x = draw<float>(3 * 40, 3);
  for (int t = 0; t < 3; ++t) {
    std::vector<float> y(40), both(120);
    std::memcpy(both.data() + 40, x.data() + 40 * t, 160);
    required(apart.step(x.data() + 40 * t, y.data()));
    float* const place = both.data() + 40 + shift;
    const bool whole = t == 1 && shift % 40 == 0;  // process takes y that is x, not one that laps over it
    required(whole ? over.process(1, both.data() + 40, 40, place, 40) : over.step(both.data() + 40, place));
    CHECK(std::memcmp(place, y.data(), 160) == 0, "step %d of %d layers, y %d behind x", t, layers, shift);
  }
}

void overlapping_and_rows() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::lstm, 6, 6));
  Stream<float> apart = required(layer.stream(2)), inplace = required(layer.stream(2)),
                block = required(layer.stream(2));
  const auto x = draw<float>(24, 3);
  std::vector<float> y(24), z = x, b = x;
  for (int t = 0; t < 2; ++t) required(apart.step(x.data() + 12 * t, y.data() + 12 * t));
  for (int t = 0; t < 2; ++t) required(inplace.step(z.data() + 12 * t, z.data() + 12 * t));
  required(block.process(2, b.data(), 12, 6, b.data(), 12, 6));
  CHECK(equal_bits(y, z) && equal_bits(y, b), "y over x");
  required(apart.reset(1)), required(inplace.reset());
  std::vector<float> h(12), c(12), zero(12);
  required(apart.get_state(h.data(), c.data()));
  CHECK(std::memcmp(h.data(), y.data() + 12, 24) == 0, "row 0 is kept");
  CHECK(std::memcmp(h.data() + 6, zero.data(), 24) == 0 && std::memcmp(c.data() + 6, zero.data(), 24) == 0, "row 1");
  required(inplace.get_state(h.data(), c.data()));
  CHECK(equal_bits(h, zero) && equal_bits(c, zero), "all rows");
}

void linear_is_a_product() {
  Linear<float> linear = required(Linear<float>::make(33, 5));
  const auto w = draw<float>(165, 1), b = draw<float>(5, 2), x = draw<float>(33 * 4, 3);
  required(linear.set(w.data(), b.data()));
  std::vector<float> y(20), step(20);
  required(linear.run(x.data(), y.data(), 4, 2));
  for (int n = 0; n < 4; ++n) required(linear.step(x.data() + n * 33, step.data() + n * 5));
  CHECK(equal_bits(y, step), "step and run of a dense layer");
  double expected = double(b[2]);
  for (int k = 0; k < 33; ++k) expected += double(w[size_t(66 + k)]) * double(x[size_t(33 + k)]);
  CHECK(std::abs(double(y[7]) - expected) < 1e-5, "%g, expected %g", double(y[7]), expected);
}

// A value moves out of its result as out of a std::optional.
void results_are_moved_from() {
  Result<Layer<float>> made = Layer<float>::make(config_of(Cell::gru, 2, 3));
  const Layer<float> layer = *std::move(made), other = *Layer<float>::make(config_of(Cell::gru, 2, 3));
  CHECK(layer.handle() && !made->handle() && other.count() == 4, "a layer");
}

void threads_share_a_layer() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::lstm, 8, 40));
  const auto x = draw<float>(8 * 200, 9);
  const auto last = [&] {
    std::vector<float> y(40 * 200);
    required(required(layer.stream()).process(200, x.data(), 8, y.data(), 40));
    return y;
  };
  const std::vector<float> alone = last();
  std::vector<float> results[8];
  std::vector<std::thread> threads;
  for (auto& result : results) threads.emplace_back([&] { result = last(); });
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) CHECK(equal_bits(result, alone), "a stream in another thread");
}

}  // namespace

void test_api() {
  for (const Config& config : kConfigs) {
    stream_is_sequence<float>(config), stream_is_sequence<double>(config);
    layouts_and_threads<float>(config), layouts_and_threads<double>(config);
  }
  gradients_are_differences();
  for (int count : {1, 2}) streams_keep_their_weights(count);
  streams_know_their_sizes<float>(), streams_know_their_sizes<double>();
  overlapping_and_rows();
  for (int layers : {1, 2}) {
    for (int shift : {-40, -39, -1, 0, 1, 39, 40}) overlapping_row(layers, shift);
  }
  linear_is_a_product();
  results_are_moved_from();
  threads_share_a_layer();
}

}  // namespace fastrnn::tests
