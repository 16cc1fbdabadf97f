#include "network/weights.h"

#include <algorithm>
#include <cstring>

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

namespace {

bool all_bf16(const float* w, size_t n) {
  constexpr size_t run = 1024;
  for (size_t begin = 0; begin < n; begin += run) {
    uint32_t bits = 0;
    for (size_t i = begin; i < std::min(n, begin + run); ++i) {
      uint32_t of;
      std::memcpy(&of, w + i, sizeof of);
      bits |= of;
    }
    if (bits & 0xffff) return false;
  }
  return true;
}
bool all_bf16(const double*, size_t) { return false; }

}  // namespace

template <class T>
bool holds_bf16(const Config& c, int gates, int input, const RawWeights<const T>& raw) {
  const size_t rows = size_t(gates) * size_t(c.hidden);
  return all_bf16(raw.hh, rows * size_t(c.output())) && all_bf16(raw.ih, rows * size_t(input));
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
  w_bf16 = arena.take<uint32_t>(rows * ((size_t(input) + 1) / 2));
  u_bf16 = arena.take<uint32_t>(rows * ((size_t(c.output()) + 1) / 2));
}

template <class T>
void PackedWeights<T>::pack_forward(const Kernels<T>& k, const Config& c, int input, const RawWeights<const T>& raw,
                                    int part, int parts) const {
  const CellKernels<T>& cell = k.cells[int(c.cell)];
  k.pack_gates(raw.ih, cell.gates, c.hidden, input, part, parts, w);
  k.pack_gates(raw.hh, cell.gates, c.hidden, c.output(), part, parts, u);
  if (c.projection) k.pack_rows(raw.hr, c.projection, c.hidden, part, parts, projection);
  if (part == 0) pack_bias(cell, c.hidden, raw, bias);
}

template <class T>
void PackedWeights<T>::pack_backward(const Kernels<T>& k, const Config& c, int input, const RawWeights<const T>& raw,
                                     int part, int parts) const {
  const int depth = k.cells[int(c.cell)].gates * c.hidden;
  k.pack_columns(raw.ih, input, depth, part, parts, wt);
  k.pack_columns(raw.hh, c.output(), depth, part, parts, ut);
  if (c.projection) k.pack_columns(raw.hr, c.hidden, c.projection, part, parts, projection_t);
}

template <class T>
void PackedWeights<T>::pack_bf16(const Kernels<T>& k, const Config& c, int input, int part, int parts) const {
  const int gates = k.cells[int(c.cell)].gates;
  k.pack_bf16(w, gates, c.hidden, input, part, parts, w_bf16);
  k.pack_bf16(u, gates, c.hidden, c.output(), part, parts, u_bf16);
}

template void pack_bias(const CellKernels<float>&, int, const RawWeights<const float>&, float*);
template void pack_bias(const CellKernels<double>&, int, const RawWeights<const double>&, double*);
template bool holds_bf16(const Config&, int, int, const RawWeights<const float>&);
template bool holds_bf16(const Config&, int, int, const RawWeights<const double>&);
template struct PackedWeights<float>;
template struct PackedWeights<double>;

}  // namespace fastrnn
