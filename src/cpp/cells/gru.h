// Gated recurrent unit: Cho et al. 2014, in the form of cuDNN and PyTorch: the reset gate acts after the matrix
// product, so W x and U h of the candidate n are kept apart; the latter is s here.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

struct Gru {
  enum Gate { r, z, n, s };
  struct Saved {
    enum { r, z, s, n };  // n last: output() makes it
  };
  struct Kept {
    enum { z, n };  // n before its tanh
  };
  static constexpr int accumulators = 4, saved = 4, saved_by_output = saved - Saved::n;
  using InputGates = Gates<r, z, n>;
  using HiddenGates = Gates<r, z, s>;
  static constexpr bool has_cell_state = false, reads_h_prev = true, reads_h = false;
  static constexpr bool carries_dh = true;
  // n waits for r. AVX2 on Zen 3, one thread, us: B8 H16 82 to 76, H32 209 to 196, H128 1,214 to 1,164, and about twice
  // that while neighbours are busy. AVX-512 on Cascade Lake, time over that without: B8 H16 0.97, B16 H20 0.95, H32
  // 0.94, B8 H64 and B64 H128 0.97, H256 1.00. (On Zen 4, h alone in the second loop, 1 to 5 % slower.)
  static constexpr bool output_apart = true;

  template <class V>
  FASTRNN_INLINE static void gates(const V* sums, CellForward<V>& u) {
    const V r = sigmoid(sums[Gate::r]);
    const V z = sigmoid(sums[Gate::z]);
    const V s = sums[Gate::s];
    u.kept[Kept::z] = z;
    u.kept[Kept::n] = fma(r, s, sums[Gate::n]);
    u.saved[Saved::r] = r;
    u.saved[Saved::z] = z;
    u.saved[Saved::s] = s;
  }

  template <class V>
  FASTRNN_INLINE static void output(CellForward<V>& u) {
    const V z = u.kept[Kept::z], n = tanh(u.kept[Kept::n]);
    u.h = fma(1 - z, n, z * u.h_prev);  // n is the last to be known
    u.saved[Saved::n] = n;
  }

  template <class V>
  FASTRNN_INLINE static void backward(CellBackward<V>& u) {
    const V r = u.saved[Saved::r], z = u.saved[Saved::z], n = u.saved[Saved::n], s = u.saved[Saved::s];
    const V dn = u.dh * (1 - z) * d_tanh(n);
    u.dgates[Gate::r] = dn * s * d_sigmoid(r);
    u.dgates[Gate::z] = u.dh * (u.h_prev - n) * d_sigmoid(z);
    u.dgates[Gate::n] = dn;
    u.dgates[Gate::s] = dn * r;
    u.carry = u.dh * z;
  }
};

}  // namespace
}  // namespace fastrnn
