#include "network/weights.h"

#include <algorithm>
#include <type_traits>

namespace fastrnn {

template <class T>
void pack_bias(const CellKernels<T>& cell, int hidden, const RawWeights<const T>& raw, T* bias) {
  const int pitch = padded(hidden);
  std::fill_n(bias, size_t(cell.accumulators) * size_t(pitch), T(0));
  if (!raw.bias_ih) return;
  for (int g = 0; g < cell.gates; ++g) {
    T* const ih = bias + cell.input_gates[g] * pitch;
    T* const hh = bias + cell.hidden_gates[g] * pitch;
    for (int j = 0; j < hidden; ++j) ih[j] = raw.bias_ih[g * hidden + j];
    for (int j = 0; j < hidden; ++j)
      hh[j] = ih == hh ? ih[j] + raw.bias_hh[g * hidden + j] : raw.bias_hh[g * hidden + j];
  }
}

template <class T>
void PackedWeights<T>::lay_out_forward(Arena& arena, const Kernels<T>& k, const Config& c, int input) {
  const CellKernels<T>& cell = k.cells[int(c.cell)];
  const size_t gates = size_t(cell.gates), hidden = whole_vectors(k, c.hidden);
  w = arena.take<T>(hidden * gates * size_t(input));
  u = arena.take<T>(hidden * gates * size_t(c.output()));
  bias = arena.take<T>(size_t(cell.accumulators * padded(c.hidden)));
  projection = arena.take_if<T>(c.projection > 0, whole_vectors(k, c.projection) * size_t(c.hidden));
}

template <class T>
void PackedWeights<T>::lay_out_backward(Arena& arena, const Kernels<T>& k, const Config& c, int input) {
  const size_t depth = size_t(k.cells[int(c.cell)].gates) * size_t(c.hidden);
  wt = arena.take<T>(whole_vectors(k, input) * depth);
  ut = arena.take<T>(whole_vectors(k, c.output()) * depth);
  projection_t = arena.take_if<T>(c.projection > 0, whole_vectors(k, c.hidden) * size_t(c.projection));
}

template <class T>
void PackedWeights<T>::lay_out_bf16(Arena& arena, const Kernels<T>& k, const Config& c, int input) {
  const size_t rows = size_t(k.cells[int(c.cell)].gates) * whole_vectors(k, c.hidden);
  w_bf16 = arena.take<uint32_t>(rows * size_t(pairs_of(input)));
  u_bf16 = arena.take<uint32_t>(rows * size_t(pairs_of(c.output())));
  projection_bf16 =
      arena.take_if<uint32_t>(c.projection > 0, whole_vectors(k, c.projection) * size_t(pairs_of(c.hidden)));
}

template <class T>
void PackedWeights<T>::pack_forward(const Kernels<T>& k, const Config& c, int input, const RawWeights<const T>& raw,
                                    int part, int parts, bool past_caches) const {
  const CellKernels<T>& cell = k.cells[int(c.cell)];
  k.pack_gates({raw.ih, cell.gates, c.hidden, input, part, parts, w, past_caches});
  k.pack_gates({raw.hh, cell.gates, c.hidden, c.output(), part, parts, u, past_caches});
  if (c.projection) k.pack_rows({raw.hr, 1, c.projection, c.hidden, part, parts, projection, past_caches});
  if (part == 0) pack_bias(cell, c.hidden, raw, bias);
}

template <class T>
void PackedWeights<T>::pack_backward(const Kernels<T>& k, const Config& c, int input, const RawWeights<const T>& raw,
                                     int part, int parts, bool past_caches) const {
  const int depth = k.cells[int(c.cell)].gates * c.hidden;
  k.pack_columns({raw.ih, 1, input, depth, part, parts, wt, past_caches});
  k.pack_columns({raw.hh, 1, c.output(), depth, part, parts, ut, past_caches});
  if (c.projection) k.pack_columns({raw.hr, 1, c.hidden, c.projection, part, parts, projection_t, past_caches});
}

template <class T>
void PackedWeights<T>::pack_bf16(const Backend& backend, const Config& c, int input, int part, int parts) const {
  if constexpr (std::is_same_v<T, float>) {
    const int gates = backend.f32.cells[int(c.cell)].gates;
    backend.bf16.pack_gates(w, gates, c.hidden, input, part, parts, w_bf16);
    backend.bf16.pack_gates(u, gates, c.hidden, c.output(), part, parts, u_bf16);
    if (c.projection) backend.bf16.pack_rows(projection, c.projection, c.hidden, part, parts, projection_bf16);
  }
}

template void pack_bias(const CellKernels<float>&, int, const RawWeights<const float>&, float*);
template void pack_bias(const CellKernels<double>&, int, const RawWeights<const double>&, double*);
template struct PackedWeights<float>;
template struct PackedWeights<double>;

}  // namespace fastrnn
