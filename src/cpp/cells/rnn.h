// The simple recurrent network: Elman 1990, with tanh or a rectifier.
#pragma once

#include "cells/cell.h"

namespace fastrnn {
namespace {

// y = max(a, 0), keeping NaN.
struct Relu {
  template <class T>
  FASTRNN_INLINE static vec<T> value(vec<T> a) {
    return a < vec<T>{} ? vec<T>{} : a;
  }
  template <class T>
  FASTRNN_INLINE static vec<T> derivative(vec<T> y) {
    return y > vec<T>{} ? broadcast(T(1)) : vec<T>{};
  }
};

struct Tanh {
  template <class T>
  FASTRNN_INLINE static vec<T> value(vec<T> a) {
    return tanh<T>(a);
  }
  template <class T>
  FASTRNN_INLINE static vec<T> derivative(vec<T> y) {
    return d_tanh(y);
  }
};

template <class Activation>
struct Rnn {
  static constexpr int accumulators = 1;
  static constexpr int saved = 0;  // the derivative needs h alone
  using InputGates = Gates<0>;
  using HiddenGates = Gates<0>;
  static constexpr bool has_cell_state = false, reads_h_prev = false, reads_h = true;
  static constexpr bool carries_dh = false;

  template <class T>
  FASTRNN_INLINE static void forward(const vec<T>* a, CellForward<T>& s) {
    s.h = Activation::template value<T>(a[0]);
  }

  template <class T>
  FASTRNN_INLINE static void backward(CellBackward<T>& s) {
    s.dgates[0] = s.dh * Activation::template derivative<T>(s.h);
  }
};

}  // namespace
}  // namespace fastrnn
