// The simple recurrent network: Elman 1990, with tanh or a rectifier.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

// y = max(a, 0), keeping NaN, also behind it.
struct Relu {
  template <class V>
  FASTRNN_INLINE static V value(V a) {
    return a < V{} ? V{} : a;
  }
  template <class V>
  FASTRNN_INLINE static V backward(V dy, V y) {
    return y <= V{} ? V{} : dy;
  }
};

struct Tanh {
  template <class V>
  FASTRNN_INLINE static V value(V a) {
    return tanh(a);
  }
  template <class V>
  FASTRNN_INLINE static V backward(V dy, V y) {
    return dy * d_tanh(y);
  }
};

template <class Activation>
struct Rnn {
  static constexpr int accumulators = 1;
  static constexpr int saved = 0, saved_by_output = 0;  // the derivative needs h alone
  using InputGates = Gates<0>;
  using HiddenGates = Gates<0>;
  static constexpr bool has_cell_state = false, reads_h_prev = false, reads_h = true;
  static constexpr bool carries_dh = false, output_apart = false;

  template <class V>
  FASTRNN_INLINE static void gates(const V* sums, CellForward<V>& u) {
    u.kept[0] = sums[0];
  }

  template <class V>
  FASTRNN_INLINE static void output(CellForward<V>& u) {
    u.h = Activation::value(u.kept[0]);
  }

  template <class V>
  FASTRNN_INLINE static void backward(CellBackward<V>& u) {
    u.dgates[0] = Activation::backward(u.dh, u.h);
  }
};

}  // namespace
}  // namespace fastrnn
