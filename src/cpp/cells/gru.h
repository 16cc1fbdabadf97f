// Gated recurrent unit: Cho et al. 2014, in the form of cuDNN and PyTorch: the reset gate acts after the matrix
// product, so W x and U h of the candidate n are kept apart.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

struct Gru {
  static constexpr int accumulators = 4;  // r, z, n from the input, n from the state
  static constexpr int saved = 4;         // r, z, n, and n's part from the state
  static constexpr unsigned saved_by_output = 1u << 2;
  using InputGates = Gates<0, 1, 2>;
  using HiddenGates = Gates<0, 1, 3>;
  static constexpr bool has_cell_state = false, reads_h_prev = true, reads_h = false;
  static constexpr bool carries_dh = true;
  // n waits for r. AVX2 on Zen 3, one thread, us: B8 H16 82 to 76, H32 209 to 196, H128 1,214 to 1,164, and about twice
  // that while neighbours are busy. AVX-512 on Cascade Lake, over without: B8 H16 0.97, B16 H20 0.95, H32 0.94, B8 H64
  // and B64 H128 0.97, H256 1.00. (On Zen 4, h alone in the second loop, 1 to 5 % slower.)
  static constexpr bool output_apart = true;

  template <class V>
  FASTRNN_INLINE static void gates(const V* a, CellForward<V>& s) {
    const V r = sigmoid(a[0]);
    const V z = sigmoid(a[1]);
    s.kept[0] = z, s.kept[1] = fma(r, a[3], a[2]);
    s.saved[0] = r, s.saved[1] = z, s.saved[3] = a[3];
  }

  template <class V>
  FASTRNN_INLINE static void output(CellForward<V>& s) {
    const V z = s.kept[0], n = tanh(s.kept[1]);
    s.h = fma(1 - z, n, z * s.h_prev);  // n is the last to be known
    s.saved[2] = n;
  }

  template <class V>
  FASTRNN_INLINE static void backward(CellBackward<V>& s) {
    const V r = s.saved[0], z = s.saved[1], n = s.saved[2], n_h = s.saved[3];
    const V dn = (s.dh - s.dh * z) * d_tanh(n);
    s.dgates[0] = dn * n_h * d_sigmoid(r);
    s.dgates[1] = s.dh * (s.h_prev - n) * d_sigmoid(z);
    s.dgates[2] = dn;
    s.dgates[3] = dn * r;
    s.carry = s.dh * z;
  }
};

}  // namespace
}  // namespace fastrnn
