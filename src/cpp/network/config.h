// The immutable shape of a stack of recurrent layers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "backend.h"

namespace fastrnn {

// "rnn_tanh, rnn_relu, lstm or gru", for messages.
inline std::string cell_names() {
  std::string text = kCellNames[0];
  for (int i = 1; i < kCells; ++i) text += (i + 1 < kCells ? ", " : " or ") + std::string(kCellNames[i]);
  return text;
}

// What each direction of a layer may have, in torch's order.
enum class Weight { ih, hh, bias_ih, bias_hh, hr };
constexpr int kWeights = 5;
constexpr const char* kWeightNames[kWeights] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"};

struct Config {
  Cell cell;
  int input, hidden, layers;
  bool bias, bidirectional;
  int projection;  // proj_size, 0: none

  int directions() const { return bidirectional ? 2 : 1; }
  int sweeps() const { return layers * directions(); }  // each one direction of a layer
  int sweep(int layer, int direction) const { return layer * directions() + direction; }
  int layer_of(int sweep) const { return sweep / directions(); }
  int output() const { return projection ? projection : hidden; }  // P
  int width() const { return output() * directions(); }            // of a layer's output row
  int input_of(int layer) const { return layer ? width() : input; }
  int input_of_sweep(int sweep) const { return input_of(layer_of(sweep)); }
  bool has(Weight w) const {
    if (w == Weight::hr) return projection > 0;
    return bias || (w != Weight::bias_ih && w != Weight::bias_hh);
  }
  int weights_per_sweep() const {
    int n = 0;
    for (int w = 0; w < kWeights; ++w) n += has(Weight(w));
    return n;
  }
  size_t weight_count() const { return size_t(sweeps()) * size_t(weights_per_sweep()); }
};

// Of a layer for one row and step.
inline double multiply_adds(const Config& c, int gates, int layer) {
  return c.directions() *
         (double(gates) * c.hidden * (c.input_of(layer) + c.output()) + double(c.projection) * c.hidden);
}

// Of a step of one row.
inline double step_flops(const Config& c, int gates) {
  double all = 0;
  for (int layer = 0; layer < c.layers; ++layer) all += 2 * multiply_adds(c, gates, layer);
  return all;
}

// A task that has the sizes of a layer and nothing else.
template <class T>
ForwardTask<T> sized_task(const Config& c, int layer) {
  ForwardTask<T> task = {};
  task.input = c.input_of(layer), task.hidden = c.hidden, task.output = c.output(), task.pitch = padded(c.hidden);
  return task;
}

// visit(weight, rows, columns) for each weight of one sweep, in torch's order. A bias has 0 columns.
template <class Visit>
void each_weight_of(const Config& c, int gates, int sweep, Visit visit) {
  const int64_t rows = int64_t(gates) * c.hidden;
  const int64_t shapes[kWeights][2] = {
      {rows, c.input_of_sweep(sweep)}, {rows, c.output()}, {rows, 0}, {rows, 0}, {c.projection, c.hidden}};
  for (int w = 0; w < kWeights; ++w) {
    if (c.has(Weight(w))) visit(Weight(w), shapes[w][0], shapes[w][1]);
  }
}

// visit(rows, columns) for those of all sweeps, one sweep after the other.
template <class Visit>
void each_weight(const Config& c, int gates, Visit visit) {
  for (int sweep = 0; sweep < c.sweeps(); ++sweep) {
    each_weight_of(c, gates, sweep, [&](Weight, int64_t rows, int64_t columns) { visit(rows, columns); });
  }
}

}  // namespace fastrnn
