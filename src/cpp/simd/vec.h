// One vector register of T, the only file that knows its width: FASTRNN_VECTOR_BYTES, set per row of cmake/Isas.cmake.
//
// Compiled once per ISA, so everything lives in an anonymous namespace: an inline function with external linkage
// would be merged by the linker across ISAs and could hand AVX-512 code to an AVX2 machine.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Clang leaves vector helpers out of line in large kernels, where a call spills every accumulator.
#define FASTRNN_INLINE [[gnu::always_inline]] inline

namespace fastrnn {
namespace {

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(FASTRNN_VECTOR_BYTES)));
};
template <class T>
using vec = typename VectorOf<T>::type;

template <class T>
constexpr int kLanes = FASTRNN_VECTOR_BYTES / int(sizeof(T));

// Accumulators a register tile may hold: 32 registers leave 24 beside weights and a broadcast, 16 leave 12.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif

// The integer vector as wide as V, for exponents and sign bits.
template <class T>
struct IntegerFor;
template <>
struct IntegerFor<float> {
  using type = int32_t;
};
template <>
struct IntegerFor<double> {
  using type = int64_t;
};
template <class T>
using ivec = vec<typename IntegerFor<T>::type>;

template <class T>
FASTRNN_INLINE vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
FASTRNN_INLINE void store(T* p, vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// First n lanes; the rest of the vector is zero. n is in [0, kLanes].
template <class T>
FASTRNN_INLINE vec<T> load_first(const T* p, int n) {
  if (n == kLanes<T>) return load(p);
  vec<T> v = {};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

template <class T>
FASTRNN_INLINE void store_first(T* p, vec<T> v, int n) {
  if (n == kLanes<T>) return store(p, v);
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

// x - 0 keeps every bit of x; x + 0 would turn -0 into +0.
template <class T>
FASTRNN_INLINE vec<T> broadcast(T x) {
  return x - vec<T>{};
}

#if defined(__FMA__) || defined(__aarch64__)
constexpr bool kHasFma = true;
#else
constexpr bool kHasFma = false;
#endif

// a * b + c with one rounding. Written lane by lane: GCC >= 11 and Clang >= 14 make it one instruction.
// A machine without FMA rounds twice: correct, but outside the promise of equal bits.
template <class T>
FASTRNN_INLINE T fma_lane(T a, T b, T c) {
  if constexpr (!kHasFma) {
    return a * b + c;
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_fmaf(a, b, c);
  } else {
    return __builtin_fma(a, b, c);
  }
}

template <class V>
FASTRNN_INLINE V fma(V a, V b, V c) {
  V r;
#pragma GCC unroll 16
  for (size_t i = 0; i < sizeof(V) / sizeof(a[0]); ++i) r[i] = fma_lane(a[i], b[i], c[i]);
  return r;
}

}  // namespace
}  // namespace fastrnn
