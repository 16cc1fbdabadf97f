// The weights of one direction of one layer, packed for the sweep. Packing for backward waits until a backward asks.
#pragma once

#include "network/config.h"
#include "network/memory.h"

namespace fastrnn {

// Torch's arrays of one direction of one layer; biases and weight_hr may be null.
template <class T>
struct RawWeights {
  const T* ih;       // [gates * H, I]
  const T* hh;       // [gates * H, P]
  const T* bias_ih;  // [gates * H]
  const T* bias_hh;  // [gates * H]
  const T* hr;       // [P, H]
};

template <class T>
struct PackedWeights {
  T *w, *u, *bias, *projection;  // as in ForwardTask
  T *wt, *ut, *projection_t;     // as in BackwardTask; wt is W as pack_columns leaves it

  void lay_out_forward(Arena& arena, const Kernels<T>& k, const Config& c, int input);
  void lay_out_backward(Arena& arena, const Kernels<T>& k, const Config& c, int input);
  // One of several parts of everything; threads may pack theirs at the same time.
  void pack_forward(const Kernels<T>& k, const Config& c, int input, const RawWeights<T>& raw, int part,
                    int parts) const;
  void pack_backward(const Kernels<T>& k, const Config& c, int input, const RawWeights<T>& raw, int part,
                     int parts) const;
};

}  // namespace fastrnn
