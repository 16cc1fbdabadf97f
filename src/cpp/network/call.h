// The arguments of a pass, and of the one back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tasks.h"

namespace fastrnn {

// Of a pass. Sizes follow from the network's Config.
template <class T>
struct Sequence {
  int64_t steps;
  int batch;
  const int64_t* lengths;  // [B] each in [0, T], or null
  Rows<const T> x;         // [T, B, I]
  const T* h0;             // [L*D, B, P], or null: zeros
  const T* c0;             // [L*D, B, H], or null
  Rows<T> y;               // [T, B, D*P], written whole
  T* hn;                   // [L*D, B, P]
  T* cn;                   // [L*D, B, H]; LSTM alone
  double dropout;          // between layers; 0: off
  uint64_t seed;           // of its mask
  int threads;
  bool regions = false;  // threads come from OpenMP alone: the caller's own spin in regions of the same run-time
};

// Of a pass back.
template <class T>
struct Gradients {
  Rows<const T> dy;    // [T, B, D*P], data null: zeros
  const T* dh;         // [L*D, B, P], or null
  const T* dc;         // [L*D, B, H], or null
  Rows<T> dx;          // [T, B, I], data null: not wanted
  T* dh0;              // [L*D, B, P], or null: not wanted
  T* dc0;              // [L*D, B, H], or null
  T* const* weights;   // as in Network::pack, written whole; null: not wanted
  double* step_norms;  // [L*D, T, B] 2-norms over the gates of W x + b, or null: not wanted
  int threads;
};

// One sweep's rows of a state of the caller's, [L * D, B, n].
struct SweepRows {
  int sweep, batch;

  // Null where the state is.
  template <class T>
  T* of(T* state, int row, int n) const {
    return state ? state + (ptrdiff_t(sweep) * batch + row) * n : nullptr;
  }
};

}  // namespace fastrnn
