// Long short-term memory: Hochreiter & Schmidhuber 1997, forget gate of Gers, Schmidhuber & Cummins 2000.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

struct Lstm {
  enum Gate { i, f, g, o };
  using Saved = Gate;
  struct Kept {
    enum { o, c };  // o before its sigmoid
  };
  static constexpr int accumulators = 4, saved = 4, saved_by_output = 1;  // o
  using InputGates = Gates<i, f, g, o>;
  using HiddenGates = Gates<i, f, g, o>;
  static constexpr bool has_cell_state = true, reads_h_prev = false, reads_h = false;
  static constexpr bool carries_dh = false;
  // h waits for c, and the next row's gates would wait with it: a core looks only so far ahead. AVX-512 on Zen 4, B16,
  // one thread, us: H20 225 to 206, H32 356 to 339, H64 1,149 to 1,112, B8 H128 with a tape 2,057 to 2,018.
  static constexpr bool output_apart = true;

  template <class V>
  FASTRNN_INLINE static void gates(const V* sums, CellForward<V>& u) {
    const V f = sigmoid(sums[Gate::f]);
    u.c = fma(f, u.c_prev, gated_tanh(sums[Gate::i], sums[Gate::g]));  // i g
    u.kept[Kept::o] = sums[Gate::o];
    u.kept[Kept::c] = u.c;
    if (!u.on_tape) return;
    u.saved[Saved::i] = sigmoid(sums[Gate::i]);
    u.saved[Saved::f] = f;
    u.saved[Saved::g] = tanh(sums[Gate::g]);
  }

  template <class V>
  FASTRNN_INLINE static void output(CellForward<V>& u) {
    const V o = u.kept[Kept::o];
    u.h = gated_tanh(o, u.kept[Kept::c]);  // o tanh(c)
    if (u.on_tape) u.saved[Saved::o] = sigmoid(o);
  }

  template <class V>
  FASTRNN_INLINE static void backward(CellBackward<V>& u) {
    const V i = u.saved[Saved::i], f = u.saved[Saved::f], g = u.saved[Saved::g], o = u.saved[Saved::o];
    const V tanh_c = tanh(u.c);
    const V dc = fma(u.dh * o, d_tanh(tanh_c), u.carry);
    u.dgates[Gate::i] = dc * g * d_sigmoid(i);
    u.dgates[Gate::f] = dc * u.c_prev * d_sigmoid(f);
    u.dgates[Gate::g] = dc * i * d_tanh(g);
    u.dgates[Gate::o] = u.dh * tanh_c * d_sigmoid(o);
    u.carry = dc * f;
  }
};

}  // namespace
}  // namespace fastrnn
