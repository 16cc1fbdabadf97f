// Less than a whole register: its first lanes, and its parts.
#pragma once

#include "simd/vec.h"

namespace fastrnn {
namespace {

// The first n lanes; memory behind them is neither read nor written. With AVX-512 by a mask: lane by lane a step of
// LSTM H12 took a third longer. (The masks of AVX2 take longer than single lanes on the machines of one vendor.)
#if FASTRNN_VECTOR_BYTES == 64
constexpr uint16_t first_lanes(int n) { return uint16_t((1u << n) - 1); }
FASTRNN_INLINE vec<float> load_lanes(const float* p, int n, vec<float>) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
FASTRNN_INLINE vec<double> load_lanes(const double* p, int n, vec<double>) {
  return _mm512_maskz_loadu_pd(uint8_t(first_lanes(n)), p);
}
FASTRNN_INLINE part_vec<float, 2> load_lanes(const float* p, int n, part_vec<float, 2>) {
  return _mm256_maskz_loadu_ps(uint8_t(first_lanes(n)), p);
}
FASTRNN_INLINE part_vec<double, 2> load_lanes(const double* p, int n, part_vec<double, 2>) {
  return _mm256_maskz_loadu_pd(uint8_t(first_lanes(n)), p);
}
FASTRNN_INLINE part_vec<float, 4> load_lanes(const float* p, int n, part_vec<float, 4>) {
  return _mm_maskz_loadu_ps(uint8_t(first_lanes(n)), p);
}
FASTRNN_INLINE part_vec<double, 4> load_lanes(const double* p, int n, part_vec<double, 4>) {
  return _mm_maskz_loadu_pd(uint8_t(first_lanes(n)), p);
}
FASTRNN_INLINE void store_lanes(float* p, vec<float> v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
FASTRNN_INLINE void store_lanes(double* p, vec<double> v, int n) {
  _mm512_mask_storeu_pd(p, uint8_t(first_lanes(n)), v);
}
FASTRNN_INLINE void store_lanes(float* p, part_vec<float, 2> v, int n) {
  _mm256_mask_storeu_ps(p, uint8_t(first_lanes(n)), v);
}
FASTRNN_INLINE void store_lanes(double* p, part_vec<double, 2> v, int n) {
  _mm256_mask_storeu_pd(p, uint8_t(first_lanes(n)), v);
}
FASTRNN_INLINE void store_lanes(float* p, part_vec<float, 4> v, int n) {
  _mm_mask_storeu_ps(p, uint8_t(first_lanes(n)), v);
}
FASTRNN_INLINE void store_lanes(double* p, part_vec<double, 4> v, int n) {
  _mm_mask_storeu_pd(p, uint8_t(first_lanes(n)), v);
}
#else
template <class V>
FASTRNN_INLINE V load_lanes(const element<V>* p, int n, V v) {
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <class V>
FASTRNN_INLINE void store_lanes(element<V>* p, V v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
#endif

// The first n lanes, n in [0, L]; the rest of the vector is zero.
template <class V>
FASTRNN_INLINE V load_first(const element<V>* p, int n) {
  return n == kLanesOf<V> ? load<V>(p) : load_lanes(p, n, V{});
}

template <class V>
FASTRNN_INLINE void store_first(element<V>* p, V v, int n) {
  n == kLanesOf<V> ? store(p, v) : store_lanes(p, v, n);
}

// Of a whole vector, where the pointer says of what.
FASTRNN_INLINE vec<float> load_first(const float* p, int n) { return load_first<vec<float>>(p, n); }
FASTRNN_INLINE vec<double> load_first(const double* p, int n) { return load_first<vec<double>>(p, n); }

// The first part; of a broadcast, one load for all widths.
template <class V>
FASTRNN_INLINE V first_part(vec<element<V>> v) {
  V first;
  __builtin_memcpy(&first, &v, sizeof first);
  return first;
}

// A whole of parts, and its parts. Only with AVX-512, and by intrinsics: GCC takes anything else through memory. Masked
// ones, of all lanes: about the others GCC 12 warns that a value is used uninitialised, its own.
#if FASTRNN_VECTOR_BYTES == 64
template <class V>
FASTRNN_INLINE vec<element<V>> join(const V* parts) {
  if constexpr (kPartsOf<V> == 2) {
    using D = part_vec<double, 2>;
    const auto whole = _mm512_castpd256_pd512(D(parts[0]));
    return vec<element<V>>(_mm512_maskz_insertf64x4(0xff, whole, D(parts[1]), 1));
  } else {
    using F = part_vec<float, 4>;
    const auto one = _mm512_castps128_ps512(F(parts[0]));
    const auto two = _mm512_maskz_insertf32x4(0xffff, one, F(parts[1]), 1);
    const auto three = _mm512_maskz_insertf32x4(0xffff, two, F(parts[2]), 2);
    return vec<element<V>>(_mm512_maskz_insertf32x4(0xffff, three, F(parts[3]), 3));
  }
}
template <class V>
FASTRNN_INLINE void split(vec<element<V>> v, V* parts) {
  parts[0] = first_part<V>(v);
  if constexpr (kPartsOf<V> == 2) {
    parts[1] = V(_mm512_maskz_extractf64x4_pd(0xff, vec<double>(v), 1));
  } else {
    parts[1] = V(_mm512_maskz_extractf32x4_ps(0xf, vec<float>(v), 1));
    parts[2] = V(_mm512_maskz_extractf32x4_ps(0xf, vec<float>(v), 2));
    parts[3] = V(_mm512_maskz_extractf32x4_ps(0xf, vec<float>(v), 3));
  }
}
#else
template <class V>
vec<element<V>> join(const V*) = delete;
template <class V>
void split(vec<element<V>>, V*) = delete;
#endif

}  // namespace
}  // namespace fastrnn
