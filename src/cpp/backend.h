// Everything one ISA provides, as function pointers. kernels.cpp fills one per row of cmake/Isas.cmake.
#pragma once

#include "tasks.h"

namespace fastrnn {

enum class Cell { rnn_tanh, rnn_relu, lstm, gru };
constexpr const char* kCellNames[] = {"rnn_tanh", "rnn_relu", "lstm", "gru"};  // in files and in Python
constexpr int kCells = int(sizeof kCellNames / sizeof *kCellNames);

constexpr int kMostSumRows = 8;  // of Kernels::sum_rows, on any ISA

template <class T>
struct CellKernels {
  int accumulators, saved;
  int input_gates[kMaxGates], hidden_gates[kMaxGates];  // accumulator of each gate of W and of U
  int gates;                                            // of W and of U
  bool has_cell_state, carries_dh;
  int (*row_tiles)(int rows);  // into how many tiles a step's rows are cut where there are fours of blocks
  void (*forward)(const ForwardTask<T>&, const Share&);
  // One row, without a projection; with P = 0 and no x it has its sums already, at `start` and `bias`.
  void (*forward_step)(const ForwardTask<T>&, const RowStep<T>&);
  void (*backward)(const BackwardTask<T>&, const Share&, int64_t steps);
  void (*input_product)(const InputTask<T>&, const Share&);
};

template <class T>
struct Kernels {
  CellKernels<T> cells[kCells];
  int lanes, tile_rows;  // of a vector; of the tiles into which many rows are cut
  int group_rows;        // up to so many are multiplied with weights as they lie even where packed ones could be kept
  int sum_rows;          // up to so many `unpacked_sums` takes; of more, pieces of weights are packed
  // Of several threads each packs the blocks that it multiplies with where units are split.
  void (*pack_gates)(const PackTask<T>&);
  void (*pack_rows)(const PackTask<T>&);
  void (*pack_columns)(const PackTask<T>&);
  void (*unpacked_sums)(const UnpackedTask<T>&, int part, int parts);  // of one of equal parts of the units
  void (*product)(const ProductTask<T>&, const Share&);
  void (*outer)(const OuterTask<T>&);
  void (*column_sums)(const T* a, ptrdiff_t a_step, int rows, int begin, int end, T* sums);
  void (*sgd)(const SgdTask<T>&, ptrdiff_t begin, ptrdiff_t end);
  void (*adam)(const AdamTask<T>&, ptrdiff_t begin, ptrdiff_t end);
  double (*sum_of_squares)(const T* values, ptrdiff_t n);
  void (*scale)(T* values, T factor, ptrdiff_t begin, ptrdiff_t end);
  void (*exp)(const T* x, T* y, ptrdiff_t n);
  void (*sigmoid)(const T* x, T* y, ptrdiff_t n);
  void (*tanh)(const T* x, T* y, ptrdiff_t n);
  void (*gated_tanh)(const T* gate, const T* x, T* y, ptrdiff_t n);
};

// Pairs of bfloat16, from what pack_gates and pack_rows of float have left.
struct Bf16Kernels {
  void (*pack_gates)(const float* packed, int gates, int units, int depth, int part, int parts, uint32_t* bf16);
  void (*pack_rows)(const float* packed, int outputs, int depth, int part, int parts, uint32_t* bf16);
};

// On the declaration of each ISA's: visible where kernels are a library of their own (src/cpp/CMakeLists.txt).
#if defined(FASTRNN_KERNELS_APART)
#define FASTRNN_KERNELS_TABLE [[gnu::visibility("default")]]
#else
#define FASTRNN_KERNELS_TABLE
#endif

struct Backend {
  const char* name;
  bool has_fma;  // without it the promise of equal bits does not hold
  Kernels<float> f32;
  Kernels<double> f64;
  Bf16Kernels bf16;
  // What a core does at best, for plans and the roofline.
  double (*fma_loop)(int64_t iterations);  // returns the flops done
  float (*read_loop)(const float* data, size_t n, size_t repeat);
  uint64_t (*fingerprint)(const char* data, size_t bytes);
};

// So many outputs as whole vectors.
template <class T>
size_t whole_vectors(const Kernels<T>& k, int outputs) {
  return (size_t(outputs) + size_t(k.lanes) - 1) / size_t(k.lanes) * size_t(k.lanes);
}

template <class T>
const Kernels<T>& kernels_of(const Backend& b);
template <>
inline const Kernels<float>& kernels_of<float>(const Backend& b) {
  return b.f32;
}
template <>
inline const Kernels<double>& kernels_of<double>(const Backend& b) {
  return b.f64;
}

}  // namespace fastrnn
