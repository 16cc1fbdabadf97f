// Backward against central differences of forward, in float64.
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
  for (size_t i = 0; p.shape.config.cell == Cell::lstm && i < p.cn.size(); ++i) sum += p.cn[i] * p.dc[i];
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

}  // namespace

void test_gradients() {
  for (const Backend* backend : usable_backends()) {
    for (const Shape& shape : shapes()) {
      // relu has no derivative where a difference crosses zero
      if (shape.config.cell == Cell::rnn_relu || shape.config.hidden > 100) continue;
      P p(shape, 0.3);
      const auto net = p.network(*backend);
      const auto tape = net->forward(p.sequence(2));
      net->backward(*tape, p.gradients(2));
      compare(p, *backend, p.x, p.dx, "x");
      compare(p, *backend, p.h0, p.dh0, "h0");
      if (shape.config.cell == Cell::lstm) compare(p, *backend, p.c0, p.dc0, "c0");
      for (size_t w = 0; w < p.weights.size(); ++w) compare(p, *backend, p.weights[w], p.dweights[w], "weight");
    }
  }
}

}  // namespace fastrnn::tests
