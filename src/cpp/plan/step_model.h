// What a step of a layer takes one thread, by a small model:
//
//   step = overhead + cell + max(flops / peak, weights / bandwidth of a core's own caches) + what it waits for the rest
//
// where the weights are all of them, or U alone with W x of many steps in one product.
#pragma once

#include "plan/core.h"

namespace fastrnn {

// What the model needs to know of a layer.
struct LayerShape {
  int gates, input, hidden, output, directions;
  int element_bytes, lanes;
  int tile_rows;               // of the tiles into which many rows are cut, whatever the cell
  int (*row_tiles)(int rows);  // into how many the kernels cut a step's rows with this cell and many blocks
  bool projects;
  bool is_bf16;  // its weights, which one row alone then reads in half the bytes (gemm/bf16.h)
  Core core;
};

// Of one weight, as a step of so many rows reads it.
inline int weight_bytes(const LayerShape& s, double rows) { return rows < 2 && s.is_bf16 ? 2 : s.element_bytes; }

constexpr double kL2Part = 0.6;  // of the second-level cache holds weights: rows and the tape pass through it too
constexpr double kL2 = 110;      // bytes a ns

// To read weights that are read at every step: from a core's own caches, and from behind them. A step walks up what the
// one before walked down, and so finds the share that a cache holds.
struct ReadTime {
  double own, behind;
  double behind_bytes;
};
ReadTime read_time(const LayerShape& shape, double bytes, double l2_gbs = kL2);

// Nanoseconds of one step of `rows` rows over `part` of the units: its input part where that is hoisted, what it takes
// to write it and to read it once more, and the rest.
struct StepTime {
  double input, passing, rest;
};
StepTime step_time(const LayerShape& shape, double rows, double part);

// Whether W x of many steps is better done in one product.
bool hoists(const LayerShape& shape, double rows, double part);

// Of the units, what the busiest of so many threads has: whole vectors. And the fewest threads whose busiest one has no
// more: eight blocks keep four busy where there are six.
double unit_part(const LayerShape& shape, int threads);
int unit_threads(const LayerShape& shape, int threads);

double core_gflops(int lanes);

}  // namespace fastrnn
