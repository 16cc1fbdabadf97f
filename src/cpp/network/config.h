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

// visit(rows, columns) for each weight, in torch's order: weight_ih, weight_hh, [bias_ih, bias_hh], [weight_hr] of each
// part. A bias has 0 columns.
template <class Visit>
void each_weight(const Config& c, int gates, Visit visit) {
  const int64_t rows = int64_t(gates) * c.hidden;
  for (int part = 0; part < c.parts(); ++part) {
    visit(rows, int64_t(c.input_of(part / c.directions())));
    visit(rows, int64_t(c.output()));
    for (int i = 0; c.bias && i < 2; ++i) visit(rows, int64_t(0));
    if (c.projection) visit(int64_t(c.projection), int64_t(c.hidden));
  }
}

}  // namespace fastrnn
