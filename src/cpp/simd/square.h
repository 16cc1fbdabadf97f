// Squares of a matrix whose rows become columns: how weights, whose rows are outputs, come into vectors across outputs.
#pragma once

#include "simd/lanes.h"

namespace fastrnn {
namespace {

// Sixteen bytes. To shuffle within each of a vector's is one cheap instruction on every machine; across them is not.
template <class V>
constexpr int kQuad = 16 / int(sizeof(element<V>));

// Sixteen bytes from each of several rows, `stride` apart, side by side.
template <class V>
FASTRNN_INLINE V load_rows(const element<V>* rows, [[maybe_unused]] ptrdiff_t stride) {
  if constexpr (sizeof(V) == 16) {
    return load<V>(rows);
#if FASTRNN_VECTOR_BYTES >= 32
  } else if constexpr (sizeof(V) == 32) {
    const auto quad = [&](int i) {
      __m128 q;
      __builtin_memcpy(&q, rows + i * stride, sizeof q);
      return q;
    };
    return V(_mm256_insertf128_ps(_mm256_castps128_ps256(quad(0)), quad(1), 1));
#endif
#if FASTRNN_VECTOR_BYTES == 64
  } else {
    using Quad = part_vec<element<V>, 4>;
    const Quad quads[] = {load<Quad>(rows), load<Quad>(rows + stride), load<Quad>(rows + 2 * stride),
                          load<Quad>(rows + 3 * stride)};
    return join(quads);
#endif
  }
}

// v[j][k] = v[k][j], within each sixteen bytes.
template <class V, int Q = kQuad<V>>
FASTRNN_INLINE void transpose_quads(V* v) {
  // Each round takes one bit of the index of a vector for one of the index of a lane.
#pragma GCC unroll 2
  for (int round = 1; round < Q; round *= 2) {
    V next[Q];
#pragma GCC unroll 2
    for (int i = 0; i < Q / 2; ++i) {
      next[2 * i] = zip_low(v[i], v[i + Q / 2]);
      next[2 * i + 1] = zip_high(v[i], v[i + Q / 2]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < Q; ++i) v[i] = next[i];
  }
}

// columns[k] lane j = rows[j * stride + k]. Quads of several rows meet while they are loaded, so what remains is a
// transpose within each, half of the shuffles of one across the vector. Packing LSTM and a step of one row, Zen 4, us,
// with those / so: H128 AVX-512 29.6 / 24.9, AVX2 27.4 / 24.6; H256 103 / 87, 100 / 91; from memory (H1024) the same.
//
// InOrder: compilers must load all that is needed of four rows before any of the next four. It pays where the rows'
// lines share a set of the first-level cache, which has eight places.
template <bool InOrder = false, class V, int L = kLanesOf<V>>
FASTRNN_INLINE void load_square(const element<V>* rows, ptrdiff_t stride, V (&columns)[L]) {
  constexpr int Q = kQuad<V>;
#pragma GCC unroll 4
  for (int j = 0; j < Q; ++j) {
#pragma GCC unroll 8
    for (int first = 0; first < L; first += Q) columns[first + j] = load_rows<V>(rows + j * stride + first, Q * stride);
#if FASTRNN_VECTOR_BYTES == 64
    if constexpr (InOrder) {
      static_assert(L / Q == 4, "of whole vectors, which have four quads");
      asm volatile("" : "+v"(columns[j]), "+v"(columns[Q + j]), "+v"(columns[2 * Q + j]), "+v"(columns[3 * Q + j]));
    }
#endif
  }
#pragma GCC unroll 8
  for (int first = 0; first < L; first += Q) transpose_quads(columns + first);
}

}  // namespace
}  // namespace fastrnn
