// Long short-term memory: Hochreiter & Schmidhuber 1997, forget gate of Gers, Schmidhuber & Cummins 2000.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

struct Lstm {
  static constexpr int accumulators = 4;  // i f g o
  static constexpr int saved = 4;         // i f g o
  static constexpr unsigned saved_by_output = 0;
  using InputGates = Gates<0, 1, 2, 3>;
  using HiddenGates = Gates<0, 1, 2, 3>;
  static constexpr bool has_cell_state = true, reads_h_prev = false, reads_h = false;
  static constexpr bool carries_dh = false;
  // h waits for c, and the next row's gates would wait with it: a core looks only so far ahead. AVX-512 on Zen 4, B16,
  // one thread, us: H20 225 to 206, H32 356 to 339, H64 1,149 to 1,112, B8 H128 with a tape 2,057 to 2,018.
  static constexpr bool output_apart = true;

  template <class V>
  FASTRNN_INLINE static void gates(const V* a, CellForward<V>& s) {
    const V i = sigmoid(a[0]);
    const V f = sigmoid(a[1]);
    const V g = tanh(a[2]);
    const V o = sigmoid(a[3]);
    s.c = fma(i, g, f * s.c_prev);  // g is the last to be known
    s.kept[0] = o, s.kept[1] = s.c;
    s.saved[0] = i, s.saved[1] = f, s.saved[2] = g, s.saved[3] = o;
  }

  template <class V>
  FASTRNN_INLINE static void output(CellForward<V>& s) {
    const V o = s.kept[0], c = s.kept[1];
    s.h = o * tanh(c);
  }

  template <class V>
  FASTRNN_INLINE static void backward(CellBackward<V>& s) {
    const V i = s.saved[0], f = s.saved[1], g = s.saved[2], o = s.saved[3];
    const V tanh_c = tanh(s.c);
    const V dc = fma(s.dh * o, d_tanh(tanh_c), s.carry);
    s.dgates[0] = dc * g * d_sigmoid(i);
    s.dgates[1] = dc * s.c_prev * d_sigmoid(f);
    s.dgates[2] = dc * i * d_tanh(g);
    s.dgates[3] = s.dh * tanh_c * d_sigmoid(o);
    s.carry = dc * f;
  }
};

}  // namespace
}  // namespace fastrnn
