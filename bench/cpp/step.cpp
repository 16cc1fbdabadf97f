// Time of one step of an LSTM, float32, one thread, every step on a sample of its own. Prints a line of JSON a size.
//
//   mean_ns   all steps of a run over its time, the least of the runs: how RTNeural's benchmarks measure (a signal of
//             seconds through the network sample by sample, and one clock around all of it)
//   p50, p99  of single steps, each between two readings of the clock, less what two readings cost by themselves
//   block     the same of blocks of 64 steps, divided by 64: no clock to subtract, and what an audio callback sees
#include <fastrnn/fastrnn.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kBlock = 64, kRuns = 7;

double ns(Clock::duration d) { return std::chrono::duration<double, std::nano>(d).count(); }

double quantile(std::vector<double>& values, double q) {
  const auto at = values.begin() + ptrdiff_t(q * double(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

std::vector<float> wave(size_t n, double frequency) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = float(0.3 * std::sin(frequency * double(i + 1)));
  return values;
}

double clock_cost() {
  std::vector<double> costs(100000);
  for (double& cost : costs) {
    const auto start = Clock::now();
    cost = ns(Clock::now() - start);
  }
  return quantile(costs, 0.5);
}

template <class Value>
Value required(fastrnn::Result<Value> result) {
  if (!result) {
    std::fprintf(stderr, "fastrnn: %s\n", result.error().message());
    std::exit(1);
  }
  return *std::move(result);
}

fastrnn::Stream<float> lstm(int inputs, int hidden) {
  fastrnn::Config config;
  config.input_size = inputs, config.hidden_size = hidden;
  auto layer = required(fastrnn::Layer<float>::make(config));
  for (size_t i = 0; i < layer.count(); ++i) {
    const auto weight = required(layer.at(i));
    const auto values = wave(weight.bytes / sizeof(float), 1.3 + double(i));
    if (auto done = layer.set(weight.name, values.data(), values.size()); !done) std::exit(1);
  }
  if (auto done = layer.prepare(); !done) std::exit(1);
  return required(layer.stream());
}

void measure(int inputs, int hidden, double seconds, double clock) {
  auto stream = lstm(inputs, hidden);
  const std::vector<float> x = wave(size_t(inputs) * 4096, 0.21);
  std::vector<float> y(static_cast<size_t>(hidden));
  const auto sample = [&](size_t i) { return x.data() + (i & 4095) * size_t(inputs); };
  const auto step = [&](size_t i) {
    if (stream.step(sample(i), y.data()) != fastrnn::Status::ok) std::exit(1);
  };
  const auto run = [&](size_t steps) {
    const auto start = Clock::now();
    for (size_t i = 0; i < steps; ++i) step(i);
    return ns(Clock::now() - start) / double(steps);
  };
  run(20000);  // warm
  const auto steps = size_t(seconds * 1e9 / (kRuns + 2) / run(20000));
  double mean = run(steps);
  for (int i = 1; i < kRuns; ++i) mean = std::min(mean, run(steps));
  std::vector<double> single(std::min<size_t>(steps, 1000000)), block(std::max<size_t>(1, steps / kBlock));
  for (size_t i = 0; i < single.size(); ++i) {
    const auto start = Clock::now();
    step(i);
    single[i] = ns(Clock::now() - start) - clock;
  }
  for (size_t i = 0; i < block.size(); ++i) {
    const auto start = Clock::now();
    for (size_t k = 0; k < kBlock; ++k) step(i * kBlock + k);
    block[i] = ns(Clock::now() - start) / kBlock;
  }
  std::printf(
      "{\"input\": %d, \"hidden\": %d, \"mean_ns\": %.1f, \"p50_ns\": %.1f, \"p99_ns\": %.1f, "
      "\"block_p50_ns\": %.1f, \"block_p99_ns\": %.1f, \"clock_ns\": %.1f, \"steps\": %zu, \"isa\": \"%s\"}\n",
      inputs, hidden, mean, quantile(single, 0.5), quantile(single, 0.99), quantile(block, 0.5), quantile(block, 0.99),
      clock, steps, fastrnn::isa());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 3;  // for each size
  const double clock = clock_cost();
  for (const int hidden : {16, 20, 32, 40}) measure(1, hidden, seconds, clock);
  measure(64, 64, seconds, clock);
  return 0;
}
