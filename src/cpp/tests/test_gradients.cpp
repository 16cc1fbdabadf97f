// Backward against central differences of forward, in float64; and any part of what it takes and gives alone.
#include <algorithm>
#include <cmath>

#include "tests/check.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

using P = Problem<double>;

// sum(y * dy) + sum(hn * dh) + sum(cn * dc)
double loss(P& p, const Backend& backend) {
  const auto net = p.network(backend);
  net->run(p.sequence(1));
  double sum = 0;
  for (size_t i = 0; i < p.y.size(); ++i) sum += p.y[i] * p.dy[i];
  for (size_t i = 0; i < p.hn.size(); ++i) sum += p.hn[i] * p.dh[i];
  for (size_t i = 0; p.cell().has_cell_state && i < p.cn.size(); ++i) sum += p.cn[i] * p.dc[i];
  return sum;
}

void compare(P& p, const Backend& backend, std::vector<double>& values, const std::vector<double>& gradient,
             const char* what) {
  const double step = 1e-6;
  for (size_t i = 0; i < values.size(); i += 1 + values.size() / 7) {
    const double value = values[i];
    values[i] = value + step;
    const double above = loss(p, backend);
    values[i] = value - step;
    const double below = loss(p, backend);
    values[i] = value;
    const double expected = (above - below) / (2 * step);
    CHECK(std::abs(gradient[i] - expected) <= 1e-6 * (1 + std::abs(expected)),
          "%s on %s: %s[%zu] is %.9g, expected %.9g", p.shape.name, backend.name, what, i, gradient[i], expected);
  }
}

// What is asked for does not depend on what else is, and what is not asked for is left alone.
void each_output_alone(const Shape& shape, const Backend& backend, int threads) {
  P p(shape, 0.3);
  const auto net = p.network(backend);
  const auto tape = net->forward(p.sequence(threads));
  const bool has_c = p.cell().has_cell_state;
  net->backward(*tape, p.gradients(threads));
  const std::vector<double> dx = p.dx, dh0 = p.dh0, dc0 = p.dc0, norms = p.norms;
  const std::vector<std::vector<double>> dweights = p.dweights;
  enum { x_alone, h_alone, c_alone, weights_alone, norms_alone };
  for (int alone = x_alone; alone <= norms_alone; ++alone) {
    if (alone == c_alone && !has_c) continue;
    const auto cleared = [](const std::vector<double>& values) { return std::vector<double>(values.size(), 9); };
    p.dx = cleared(dx), p.dh0 = cleared(dh0), p.dc0 = cleared(dc0), p.norms = cleared(norms);
    for (auto& w : p.dweights) std::fill(w.begin(), w.end(), 9);
    auto call = p.gradients(threads);
    if (alone != x_alone) call.dx.data = nullptr;
    if (alone != h_alone) call.dh0 = nullptr;
    if (alone != c_alone) call.dc0 = nullptr;
    if (alone != weights_alone) call.weights = nullptr;
    if (alone != norms_alone) call.step_norms = nullptr;
    net->backward(*tape, call);
    const auto right = [&](int which, const std::vector<double>& got, const std::vector<double>& wanted) {
      return got == (alone == which ? wanted : cleared(wanted));
    };
    bool weights = true;
    for (size_t w = 0; w < dweights.size(); ++w) weights = weights && right(weights_alone, p.dweights[w], dweights[w]);
    CHECK(right(x_alone, p.dx, dx) && right(h_alone, p.dh0, dh0) && right(c_alone, p.dc0, dc0) && weights &&
              right(norms_alone, p.norms, norms),
          "%s on %s, %d threads: output %d alone", shape.name, backend.name, threads, alone);
  }
}

// An input that is not given is zero.
void each_input_missing(const Shape& shape, const Backend& backend) {
  P p(shape, 0.3);
  const auto net = p.network(backend);
  const auto tape = net->forward(p.sequence(1));
  for (std::vector<double>* input : {&p.dy, &p.dh, &p.dc}) {
    std::fill(input->begin(), input->end(), 0);
    net->backward(*tape, p.gradients(1));
    const std::vector<double> dx = p.dx, dh0 = p.dh0, dc0 = p.dc0;
    const std::vector<std::vector<double>> dweights = p.dweights;
    auto call = p.gradients(1);
    if (input == &p.dy) call.dy.data = nullptr;
    if (input == &p.dh) call.dh = nullptr;
    if (input == &p.dc) call.dc = nullptr;
    net->backward(*tape, call);
    CHECK(p.dx == dx && p.dh0 == dh0 && p.dc0 == dc0 && p.dweights == dweights, "%s on %s: an input of zeros",
          shape.name, backend.name);
  }
}

}  // namespace

void test_gradients() {
  for (const Backend* backend : usable_backends()) {
    for (const Shape& shape : shapes()) {
      for (const int threads : {1, 2, 3}) each_output_alone(shape, *backend, threads);
      each_input_missing(shape, *backend);
      // relu has no derivative where a difference crosses zero
      if (shape.config.cell == Cell::rnn_relu || shape.config.hidden > 100) continue;
      P p(shape, 0.3);
      const auto net = p.network(*backend);
      const auto tape = net->forward(p.sequence(2));
      net->backward(*tape, p.gradients(2));
      compare(p, *backend, p.x, p.dx, "x");
      compare(p, *backend, p.h0, p.dh0, "h0");
      if (p.cell().has_cell_state) compare(p, *backend, p.c0, p.dc0, "c0");
      for (size_t w = 0; w < p.weights.size(); ++w) compare(p, *backend, p.weights[w], p.dweights[w], "weight");
    }
  }
}

}  // namespace fastrnn::tests
