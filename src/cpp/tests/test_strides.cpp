// Arrays with gaps: an element lies where the strides say, and what is between is neither read nor written.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/api_check.h"

namespace fastrnn::tests {
namespace {

constexpr int kTimes = 6;

struct Strides {
  ptrdiff_t step, row;
};

// Strides of x [T, B, 3] and y [T, B, 5 or, of two directions, 10].
struct Layout {
  const char* name;
  int batch;
  Strides x, y;
};

constexpr Layout kLayouts[] = {
    {"one row", 1, {7, 99}, {14, 99}},  // whose row stride is nobody's business
    {"one row, the same input at each step", 1, {0, 0}, {11, 1}},
    {"steps outermost", 2, {19, 9}, {31, 13}},
    {"rows outermost", 2, {7, 7 * kTimes + 2}, {11, 11 * kTimes + 4}},
    {"rows of the same input", 3, {5, 0}, {40, 13}},
};

// A [T, B, n] array behind strides: NaN in its gaps, which shows wherever one is read.
template <class T>
struct Spread {
  Spread(const Layout& layout, Strides strides, int n) : batch(layout.batch), width(n), at(strides) {
    values.assign(size_t(place(kTimes - 1, batch - 1) + n + 20), T(NAN));
  }
  ptrdiff_t place(int t, int b) const { return t * at.step + b * (batch > 1 ? at.row : 0); }

  void put(const std::vector<T>& dense) {
    size_t i = 0;
    for (int t = 0; t < kTimes; ++t) {
      for (int b = 0; b < batch; ++b, i += size_t(width)) std::copy_n(&dense[i], width, &values[size_t(place(t, b))]);
    }
  }
  std::vector<T> dense() const {
    std::vector<T> all;
    for (int t = 0; t < kTimes; ++t) {
      for (int b = 0; b < batch; ++b)
        all.insert(all.end(), &values[size_t(place(t, b))], &values[size_t(place(t, b) + width)]);
    }
    return all;
  }
  // Nothing but these rows.
  bool is(const std::vector<T>& dense) const {
    Spread expected = *this;
    expected.values.assign(values.size(), T(NAN));
    expected.put(dense);
    return std::memcmp(expected.values.data(), values.data(), values.size() * sizeof(T)) == 0;
  }

  int batch, width;
  Strides at;
  std::vector<T> values;
};

template <class T>
Sequence<T> sequence_of(int batch, const T* x, Strides x_at, T* y, Strides y_at) {
  Sequence<T> s;
  s.steps = kTimes, s.batch = batch, s.x = x, s.y = y;
  s.x_step = x_at.step, s.x_row = x_at.row, s.y_step = y_at.step, s.y_row = y_at.row;
  return s;
}

template <class T>
struct Case {
  Case(const Config& c, const Layout& l)
      : config(c),
        layout(l),
        layer(ready_layer<T>(c)),
        width(c.output_size() * c.directions()),
        dense_x(3 * l.batch),
        dense_y(width * l.batch),
        x(l, l.x, 3) {
    x.put(draw<T>(size_t(kTimes * l.batch * 3), 5));
    x_values = x.dense(), y_values.resize(size_t(kTimes * dense_y));
    dense = sequence_of<T>(l.batch, x_values.data(), {dense_x, 3}, y_values.data(), {dense_y, width});
    required(layer.run(dense));
  }

  Config config;
  Layout layout;
  Layer<T> layer;
  int width, dense_x, dense_y;
  Spread<T> x;
  std::vector<T> x_values, y_values;
  Sequence<T> dense;
};

template <class T>
void sequences(const Config& config, const Layout& layout) {
  const Case<T> c(config, layout);
  Spread<T> y(layout, layout.y, c.width);
  const Sequence<T> s = sequence_of(layout.batch, c.x.values.data(), layout.x, y.values.data(), layout.y);
  required(c.layer.run(s));
  CHECK(y.is(c.y_values), "run, cell %d, %s", int(config.cell), layout.name);
}

template <class T>
void streams(const Config& config, const Layout& layout) {
  const Case<T> c(config, layout);
  for (int threads = 1; threads <= 2; ++threads) {
    Spread<T> y(layout, layout.y, c.width);
    Stream<T> stream = required(c.layer.stream(layout.batch, threads));
    for (const int from : {0, 2}) {  // two blocks
      const ptrdiff_t x_from = from * layout.x.step, y_from = from * layout.y.step;
      required(stream.process(from ? kTimes - from : 2, c.x.values.data() + x_from, layout.x.step, layout.x.row,
                              y.values.data() + y_from, layout.y.step, layout.y.row));
    }
    CHECK(y.is(c.y_values), "process, cell %d, %s, %d threads", int(config.cell), layout.name, threads);
  }
}

// A head over rows with gaps, more of them than are taken at once; its bits are those of run.
template <class T>
void heads() {
  constexpr int kRows = 500, kIn = 5, kOut = 3;
  Linear<T> head = required(Linear<T>::make(kIn, kOut));
  const auto w = draw<T>(kIn * kOut, 8), b = draw<T>(kOut, 9), x = draw<T>(kRows * kIn, 10);
  required(head.set(w.data(), b.data()));
  std::vector<T> expected(kRows * kOut);
  required(head.run(x.data(), expected.data(), kRows));
  for (const int rows : {1, 2, 7, 239, 240, 241, kRows}) {
    for (const int gap : {0, 4}) {
      const size_t x_step = size_t(kIn + gap), y_step = size_t(kOut + gap);
      std::vector<T> from(x_step * kRows, T(NAN)), to(y_step * kRows, T(77));
      for (size_t i = 0; i < kRows; ++i) std::copy_n(&x[i * kIn], kIn, &from[i * x_step]);
      required(head.process(rows, from.data(), ptrdiff_t(x_step), to.data(), ptrdiff_t(y_step)));
      bool same = true;
      for (size_t i = 0; i < to.size(); ++i) {
        const size_t row = i / y_step, column = i % y_step;
        const bool written = row < size_t(rows) && column < kOut;
        same = same && to[i] == (written ? expected[row * kOut + column] : T(77));
      }
      CHECK(same, "%d rows, %d elements between them", rows, gap);
    }
  }
}

// dx and dy lie as x and y do.
void gradients_with_gaps(const Config& config, const Layout& layout) {
  if (layout.x.step < 3 || (layout.batch > 1 && layout.x.row < 3)) return;  // dx may not overlap itself
  const Case<double> c(config, layout);
  const Tape tape = required(c.layer.forward(c.dense));
  std::vector<std::vector<double>> dw;
  std::vector<double*> weights;
  for (size_t i = 0; i < c.layer.count(); ++i) dw.emplace_back(required(c.layer.at(i)).bytes / sizeof(double));
  for (auto& w : dw) weights.push_back(w.data());
  const auto dy = draw<double>(c.y_values.size(), 6);
  std::vector<double> dx(c.x_values.size());
  Gradients<double> g;
  g.weights = weights.data();
  g.dy = dy.data(), g.dy_step = c.dense_y, g.dy_row = c.width, g.dx = dx.data(), g.dx_step = c.dense_x, g.dx_row = 3;
  required(c.layer.backward(tape, g));
  const auto dense_dw = dw;
  Spread<double> gapped_dy(layout, layout.y, c.width), gapped_dx(layout, layout.x, 3);
  gapped_dy.put(dy);
  g.dy = gapped_dy.values.data(), g.dy_step = layout.y.step, g.dy_row = layout.y.row;
  g.dx = gapped_dx.values.data(), g.dx_step = layout.x.step, g.dx_row = layout.x.row;
  required(c.layer.backward(tape, g));
  CHECK(gapped_dx.is(dx) && dw == dense_dw, "backward, cell %d, %s", int(config.cell), layout.name);
}

// The stride from the only step, or the only row, to the next may be anything.
void strides_without_a_use() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::gru, 3, 5));
  const auto x = draw<float>(9, 7);
  constexpr ptrdiff_t most = std::numeric_limits<ptrdiff_t>::max();
  for (const bool one_step : {true, false}) {
    std::vector<float> expected(15), y(15);
    Sequence<float> s = sequence_of<float>(one_step ? 3 : 1, x.data(), {3, 3}, expected.data(), {5, 5});
    s.steps = one_step ? 1 : 3;
    s.threads = 1;
    if (one_step) s.x_step = 9, s.y_step = 15;
    required(layer.run(s));
    s.y = y.data();
    for (const ptrdiff_t any : {ptrdiff_t(-5), ptrdiff_t(0), ptrdiff_t(1), most, -most}) {
      (one_step ? s.x_step : s.x_row) = (one_step ? s.y_step : s.y_row) = any;
      y.assign(15, 0);
      required(layer.run(s));
      CHECK(y == expected, "%s with a stride of %td", one_step ? "one step" : "one row", any);
    }
  }
}

}  // namespace

void test_strides() {
  const Config both = config_of(Cell::lstm, 3, 5, 1, 0, true);
  const Config configs[] = {config_of(Cell::lstm, 3, 5), config_of(Cell::gru, 3, 5, 2),
                            config_of(Cell::lstm, 3, 9, 1, 5)};
  for (const Layout& layout : kLayouts) {
    for (const Config& config : configs) {
      sequences<float>(config, layout), sequences<double>(config, layout);
      streams<float>(config, layout), streams<double>(config, layout);
      gradients_with_gaps(config, layout);
    }
    sequences<float>(both, layout), sequences<double>(both, layout);
    gradients_with_gaps(both, layout);
  }
  heads<float>(), heads<double>();
  strides_without_a_use();
}

}  // namespace fastrnn::tests
