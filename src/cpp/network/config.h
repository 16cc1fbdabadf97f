// The immutable shape of a stack of recurrent layers.
#pragma once

#include "backend.h"

namespace fastrnn {

struct Config {
  Cell cell;
  int input, hidden, layers;
  bool bias, bidirectional;
  int projection;  // proj_size, 0: none

  int directions() const { return bidirectional ? 2 : 1; }
  int parts() const { return layers * directions(); }  // a part is one direction of one layer, at layer * D + direction
  int output() const { return projection ? projection : hidden; }  // P
  int width() const { return output() * directions(); }            // of a layer's output row
  int input_of(int layer) const { return layer ? width() : input; }
  int weights_per_part() const { return 2 + (bias ? 2 : 0) + (projection ? 1 : 0); }
};

}  // namespace fastrnn
