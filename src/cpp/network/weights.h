// The weights of one direction of one layer, packed for the sweep. Packing for backward waits until a backward asks.
#pragma once

#include <atomic>

#include "network/bf16.h"
#include "network/config.h"
#include "system/memory.h"

namespace fastrnn {

// Torch's arrays of one direction of one layer: weights (T is
// const) or their gradients. Biases and weight_hr may be null.
template <class T>
struct RawWeights {
  T* ih;       // [gates * H, I]
  T* hh;       // [gates * H, P]
  T* bias_ih;  // [gates * H]
  T* bias_hh;  // [gates * H]
  T* hr;       // [P, H]
};

// Those of one sweep, of all in torch's order.
template <class T>
RawWeights<T> raw_weights(const Config& c, T* const* all, int sweep) {
  T* const* next = all + ptrdiff_t(sweep) * c.weights_per_sweep();
  T* of[kWeights] = {};
  for (int w = 0; w < kWeights; ++w) {
    if (c.has(Weight(w))) of[w] = *next++;
  }
  const auto get = [&](Weight w) { return of[int(w)]; };
  return {get(Weight::ih), get(Weight::hh), get(Weight::bias_ih), get(Weight::bias_hh), get(Weight::hr)};
}

// The start of each accumulator [A][padded(H)]: both biases where W x and U h end in the same one, else each its own.
template <class T>
void pack_bias(const CellKernels<T>& cell, int hidden, const RawWeights<const T>& raw, T* bias);

// Packed weights of more bytes are written past the caches. Training two to ten steps of up to 16 rows, Zen 4 (32 MB),
// one thread and two, time over that with ordinary stores: LSTM H256 (2 MB) 1.2 and 1.3 to 1.5, GRU H384 (3.5) 0.99 and
// 1.1, GRU H512 (6.3) 0.89 to 0.95 and 0.92, LSTM H512 (8.4) 0.90 and 0.70, GRU H1024 (25) 0.83 to 0.91 and 0.79 to
// 0.88.
constexpr size_t kMostPackedInCaches = size_t(6) << 20;

template <class T>
struct PackedWeights {
  T *w, *u, *bias, *projection;                 // as in ForwardTask
  T *wt, *ut, *projection_t;                    // as in BackwardTask; wt is W as pack_columns leaves it
  uint32_t *w_bf16, *u_bf16, *projection_bf16;  // as in Bf16Weights
  // Whether these are packed and used. How many threads may pack is planned before the lock is taken, when another
  // thread may be packing already: what it finds may come too late for that plan, not for those of the pass.
  std::atomic<bool> is_bf16{false};

  Bf16Weights bf16() const { return is_bf16 ? Bf16Weights{w_bf16, u_bf16, projection_bf16} : Bf16Weights{}; }

  void lay_out_forward(Arena& arena, const Kernels<T>& k, const Config& c, int input);
  void lay_out_backward(Arena& arena, const Kernels<T>& k, const Config& c, int input);
  void lay_out_bf16(Arena& arena, const Kernels<T>& k, const Config& c, int input);
  // One of several parts of everything; threads may pack theirs at the same time.
  void pack_forward(const Kernels<T>& k, const Config& c, int input, const RawWeights<const T>& raw, int part,
                    int parts, bool past_caches) const;
  void pack_backward(const Kernels<T>& k, const Config& c, int input, const RawWeights<const T>& raw, int part,
                     int parts, bool past_caches) const;
  void pack_bf16(const Backend& backend, const Config& c, int input, int part, int parts) const;
};

}  // namespace fastrnn
