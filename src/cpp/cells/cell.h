// What every cell file provides: a struct with
//   accumulators            sums per hidden unit that a step ends with, and dgates backward; `Gate` numbers them
//   InputGates, HiddenGates which of them W x and U h add to (in the order of the gates in the weight matrices)
//   saved                   vectors per unit kept on the tape for backward; `Saved` numbers them
//   saved_by_output         how many of them output() makes, the last ones; gates() makes the others
//   has_cell_state          whether c travels beside h
//   reads_h_prev, reads_h   whether forward or backward use the previous h elementwise, backward the new h
//   carries_dh              whether backward hands a part of dh to the step before, elementwise
//   gates, output, backward the equations; output: h, from what gates() left in kept (`Kept` numbers it)
//   output_apart            whether a tile computes the gates of all its rows first, and then h of all
// `check_cell` below has what must hold between them.
#pragma once

#include "simd/math.h"
#include "tasks.h"

namespace fastrnn {
namespace {

template <int... Index>
struct Gates {
  static constexpr int count = int(sizeof...(Index));
  static constexpr int index[count] = {Index...};

  // Whether each of the first n gates adds to the sum of its own number.
  static constexpr bool in_order(int n) {
    for (int g = 0; g < n; ++g) {
      if (index[g] != g) return false;
    }
    return true;
  }
};

// One vector of hidden units at one step.
template <class V>
struct CellForward {
  V h_prev, c_prev;
  bool on_tape;  // whether anybody reads saved: what costs time is made for the tape alone
  V saved[kMaxGates];
  V c;
  V kept[2];  // what output() needs of gates()
  V h;
};

template <class V>
struct CellBackward {
  V saved[kMaxGates];
  V h, h_prev, c, c_prev;
  V dh;                 // everything that reaches h
  V carry;              // in: what reached c from the step after; out: for the step before
  V dgates[kMaxGates];  // with respect to the accumulators
};

// Derivatives from the function's value.
template <class V>
FASTRNN_INLINE V d_sigmoid(V y) {
  return fma(-y, y, y);
}
template <class V>
FASTRNN_INLINE V d_tanh(V y) {
  return fma(-y, y, broadcast<V>(1));
}

// What the layers above rely on.
template <class Cell>
constexpr void check_cell() {
  using Input = typename Cell::InputGates;
  using Hidden = typename Cell::HiddenGates;
  constexpr int gates = Input::count;
  static_assert(Cell::accumulators <= kMaxGates && Cell::saved <= kMaxGates, "kMaxGates of tasks.h is too small");
  static_assert(Hidden::count == gates && Input::in_order(gates),
                "the first accumulators are the gates of W, in order: bias + W x of many steps is stored so");
  static_assert(Hidden::in_order(gates / 2 * 2),
                "only the last of an odd number of gates may keep U h apart from W x: "
                "gates of a part of a block share a vector (gemm/part.h)");
  static_assert(Hidden::index[gates - 1] < Cell::accumulators && gates <= Cell::accumulators,
                "each gate of W and of U adds to an accumulator");
  static_assert(Cell::saved_by_output <= Cell::saved, "what output() saves is counted in saved");
  static_assert(!(Cell::has_cell_state && Cell::carries_dh), "there is one carry a unit, of c or of dh");
  static_assert(Cell::reads_h == (Cell::saved == 0),
                "fastrnn.torch keeps h of a single step for cells that save nothing");
}

}  // namespace
}  // namespace fastrnn
