// Long short-term memory: Hochreiter & Schmidhuber 1997, forget gate of Gers, Schmidhuber & Cummins 2000.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

struct Lstm {
  static constexpr int accumulators = 4;  // i f g o
  static constexpr int saved = 4;         // i f g o
  using InputGates = Gates<0, 1, 2, 3>;
  using HiddenGates = Gates<0, 1, 2, 3>;
  static constexpr bool has_cell_state = true, reads_h_prev = false, reads_h = false;
  static constexpr bool carries_dh = false;

  template <class T>
  FASTRNN_INLINE static void forward(const vec<T>* a, CellForward<T>& s) {
    const vec<T> i = sigmoid<T>(a[0]);
    const vec<T> f = sigmoid<T>(a[1]);
    const vec<T> g = tanh<T>(a[2]);
    const vec<T> o = sigmoid<T>(a[3]);
    s.c = fma(f, s.c_prev, i * g);
    s.h = o * tanh<T>(s.c);
    s.saved[0] = i, s.saved[1] = f, s.saved[2] = g, s.saved[3] = o;
  }

  template <class T>
  FASTRNN_INLINE static void backward(CellBackward<T>& s) {
    const vec<T> i = s.saved[0], f = s.saved[1], g = s.saved[2], o = s.saved[3];
    const vec<T> tanh_c = tanh<T>(s.c);
    const vec<T> dc = fma(s.dh * o, d_tanh(tanh_c), s.carry);
    s.dgates[0] = dc * g * d_sigmoid(i);
    s.dgates[1] = dc * s.c_prev * d_sigmoid(f);
    s.dgates[2] = dc * i * d_tanh(g);
    s.dgates[3] = s.dh * tanh_c * d_sigmoid(o);
    s.carry = dc * f;
  }
};

}  // namespace
}  // namespace fastrnn
