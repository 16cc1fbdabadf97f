#include "python/checks.h"

#include <algorithm>
#include <iterator>
#include <tuple>

#include "python/refuse.h"
#include "system/limits.h"
#include "threads/threads.h"

namespace fastrnn {

void check_size(const char* name, int64_t steps, int64_t batch) {
  if (steps <= kMaxSteps && batch <= kMaxBatch) return;
  throw py::value_error(std::string(name) + ": expected at most T = " + std::to_string(kMaxSteps) +
                        " steps of B = " + std::to_string(kMaxBatch) + " rows, got T = " + std::to_string(steps) +
                        ", B = " + std::to_string(batch));
}

std::vector<int64_t> checked_lengths(const int64_t* given, int64_t steps, int64_t batch) {
  std::vector<int64_t> lengths(given, given + batch);
  for (size_t row = 0; row < lengths.size(); ++row) {
    if (lengths[row] >= 0 && lengths[row] <= steps) continue;
    throw py::value_error("lengths: expected values in 0..T = " + std::to_string(steps) + ", got " +
                          std::to_string(lengths[row]) + " at row " + std::to_string(row));
  }
  return lengths;
}

double checked_dropout(double p) {
  if (p >= 0 && p <= 1) return p;
  throw py::value_error("dropout: expected a number from 0 to 1, got " + std::string(py::repr(py::float_(p))));
}

Config checked_config(const std::string& cell, int input, int hidden, int layers, bool bias, bool bidirectional,
                      int projection) {
  const auto name = std::find(std::begin(kCellNames), std::end(kCellNames), cell);
  if (name == std::end(kCellNames)) throw py::value_error("cell: expected " + cell_names() + ", got '" + cell + "'");
  const Cell found = Cell(name - std::begin(kCellNames));
  within(projection, 0, kMaxSize, "proj_size");
  if (projection && (found != Cell::lstm || projection >= hidden)) {
    throw py::value_error("proj_size: expected 0, or for an LSTM less than hidden_size=" + std::to_string(hidden) +
                          ", got " + std::to_string(projection) + " for " + cell);
  }
  return {found,
          within(input, 1, kMaxSize, "input_size"),
          within(hidden, 1, kMaxSize, "hidden_size"),
          within(layers, 1, kMaxSize, "num_layers"),
          bias,
          bidirectional,
          projection};
}

bool same(const Config& a, const Config& b) {
  const auto all = [](const Config& c) {
    return std::tie(c.cell, c.input, c.hidden, c.layers, c.bias, c.bidirectional, c.projection);
  };
  return all(a) == all(b);
}

std::string describe(const Config& c, const char* dtype) {
  std::string text =
      std::string(kCellNames[int(c.cell)]) + "(" + std::to_string(c.input) + ", " + std::to_string(c.hidden);
  if (c.layers > 1) text += ", num_layers=" + std::to_string(c.layers);
  if (!c.bias) text += ", bias=False";
  if (c.bidirectional) text += ", bidirectional=True";
  if (c.projection) text += ", proj_size=" + std::to_string(c.projection);
  return text + ") in " + dtype;
}

int threads_of(int asked) {
  if (asked < 0) throw py::value_error("threads: expected 0 or more, got " + std::to_string(asked));
  return std::min(asked ? asked : available_threads(), kMaxThreads);
}

}  // namespace fastrnn
