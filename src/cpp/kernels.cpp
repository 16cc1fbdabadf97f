// Instantiates the kernels; compiled once per row of cmake/Isas.cmake with that ISA's flags.
#include "backend.h"

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "gemm/bf16.h"
#include "gemm/fingerprint.h"
#include "gemm/outer.h"
#include "gemm/pack.h"
#include "gemm/product.h"
#include "optim/rules.h"
#include "sweep/backward.h"
#include "sweep/forward.h"
#include "sweep/unpacked.h"

namespace fastrnn {
namespace {

template <class C, class T>
constexpr CellKernels<T> cell_kernels() {
  check_cell<C>();
  CellKernels<T> k = {};
  k.accumulators = C::accumulators;
  k.saved = C::saved;
  k.gates = C::InputGates::count;
  for (int g = 0; g < k.gates; ++g) {
    k.input_gates[g] = C::InputGates::index[g];
    k.hidden_gates[g] = C::HiddenGates::index[g];
  }
  k.has_cell_state = C::has_cell_state;
  k.carries_dh = C::carries_dh;
  // For plans, which count with whole fours of blocks.
  k.row_tiles = [](int rows) { return row_tiles<C::InputGates::count>(rows, kFullBlocks); };
  k.forward = forward_sweep<C, T>;
  k.forward_step = forward_step<C, T>;
  k.backward = backward_sweep<C, T>;
  k.input_product = input_product<C, T>;
  return k;
}

template <class T, vec<T> (*F)(vec<T>)>
void map(const T* x, T* y, ptrdiff_t n) {
  each_vector<T>(0, n, [&](ptrdiff_t i, int lanes) { store_first(y + i, F(load_first(x + i, lanes)), lanes); });
}

template <class T, vec<T> (*F)(vec<T>, vec<T>)>
void map(const T* a, const T* b, T* y, ptrdiff_t n) {
  each_vector<T>(0, n, [&](ptrdiff_t i, int lanes) {
    store_first(y + i, F(load_first(a + i, lanes), load_first(b + i, lanes)), lanes);
  });
}

template <class T>
constexpr Kernels<T> kernels() {
  Kernels<T> k = {};
  k.cells[int(Cell::rnn_tanh)] = cell_kernels<Rnn<Tanh>, T>();
  k.cells[int(Cell::rnn_relu)] = cell_kernels<Rnn<Relu>, T>();
  k.cells[int(Cell::lstm)] = cell_kernels<Lstm, T>();
  k.cells[int(Cell::gru)] = cell_kernels<Gru, T>();
  k.lanes = kLanes<T>;
  k.tile_rows = kAccumulators / kSide;
  k.group_rows = kGroupRows;
  k.sum_rows = kSumRows;
  k.pack_gates = pack_gates<T>;
  k.pack_rows = pack_rows<T>;
  k.pack_columns = pack_columns<T>;
  k.unpacked_sums = unpacked_sums<T>;
  k.product = product<T>;
  k.outer = outer<T>;
  k.column_sums = column_sums<T>;
  k.sgd = sgd<T>;
  k.adam = adam<T>;
  k.sum_of_squares = sum_of_squares<T>, k.scale = scale<T>;
  k.exp = map<T, exp<vec<T>>>;
  k.sigmoid = map<T, sigmoid<vec<T>>>;
  k.tanh = map<T, tanh<vec<T>>>;
  k.gated_tanh = map<T, gated_tanh<vec<T>>>;
  return k;
}

// Enough independent chains for two FMA units: what the machine can do at best. They start from different values, or
// the compiler makes one of them.
double fma_loop(int64_t iterations) {
  constexpr int chains = 12;
  vec<float> acc[chains];
  for (int i = 0; i < chains; ++i) acc[i] = broadcast(float(i));
  const vec<float> x = broadcast(0.999f), y = broadcast(0.001f);
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) acc[i] = fma(acc[i], x, y);
  }
  for (int i = 0; i < chains; ++i) asm volatile("" : : "m"(acc[i]));
  return 2.0 * chains * kLanes<float> * double(iterations);
}

// Reads data [n] `repeat` times.
float read_loop(const float* data, size_t n, size_t repeat) {
  constexpr int W = kLanes<float>, chains = 8;
  vec<float> acc[chains] = {};
  for (; repeat > 0; --repeat) {
    for (size_t i = 0; i + chains * W <= n; i += chains * W) {
#pragma GCC unroll 8
      for (int j = 0; j < chains; ++j) acc[j] = acc[j] + load(data + i + j * W);
    }
    asm volatile("" : : : "memory");
  }
  float sum = 0;
  for (int j = 0; j < chains; ++j) {
    for (int lane = 0; lane < W; ++lane) sum += acc[j][lane];
  }
  return sum;
}

// Whether each cell of backend.h has its row in `kernels`. One without would be a call of a null pointer.
template <class T>
constexpr bool complete(const Kernels<T>& k) {
  for (const CellKernels<T>& cell : k.cells) {
    if (!cell.accumulators) return false;
  }
  return true;
}

}  // namespace

#define FASTRNN_TEXT_(x) #x
#define FASTRNN_TEXT(x) FASTRNN_TEXT_(x)
#define FASTRNN_JOIN_(a, b) a##b
#define FASTRNN_JOIN(a, b) FASTRNN_JOIN_(a, b)

FASTRNN_KERNELS_TABLE extern const Backend FASTRNN_JOIN(backend_, FASTRNN_ISA_NAME);
constexpr Backend FASTRNN_JOIN(backend_, FASTRNN_ISA_NAME) = {
    FASTRNN_TEXT(FASTRNN_ISA_NAME),    kHasFma,  kernels<float>(), kernels<double>(),
    {pack_gates_bf16, pack_rows_bf16}, fma_loop, read_loop,        fingerprint};
static_assert(complete(FASTRNN_JOIN(backend_, FASTRNN_ISA_NAME).f32), "each cell of kCellNames needs kernels");
static_assert(kSumRows <= kMostSumRows, "the network has places for so many");
static_assert(kPad % kLanes<float> == 0, "rows are padded to whole vectors on every ISA");

}  // namespace fastrnn
