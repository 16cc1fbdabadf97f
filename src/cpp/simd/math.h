// exp, sigmoid and tanh of a vector, from FMA and IEEE operations only: the same bits on every ISA that has an FMA.
//
// Contracts (checked in tests/test_functions.py by sweeping bit patterns on every ISA):
//   function  range         error, float32 / float64   special values
//   exp       all           <= 1.2 / 1.2 ULP           NaN -> NaN, -inf -> 0, +inf -> +inf
//   sigmoid   all           <= 2.5 / 2.5 ULP           NaN -> NaN, -inf -> 0, +inf -> 1
//   tanh      all           <= 2.5 / 2.5 ULP, odd      NaN -> NaN, -+inf -> -+1, -+0 -> -+0
// A result below the smallest normal number may be flushed to zero (callers run with denormals flushed).
#pragma once

#include "simd/vec.h"

namespace fastrnn {
namespace {

// e^r - 1 = r + r^2 q(r) on |r| <= ln(2)/2. q is our own minimax fit (Remez, 60 digits) of the relative error:
// 1.3e-8 in degree 4 (float32), 1.8e-17 in degree 9 (float64).
template <class T>
struct Exp;

template <>
struct Exp<float> {
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr float round_bits = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  static constexpr float log2e = 0x1.715476p0f, ln2_high = 0x1.62e43p-1f, ln2_low = -0x1.05c61p-29f;
  static constexpr float lowest = -105.0f, highest = 89.5f;  // beyond: 0, inf
  static constexpr float one_power = 88.37f;                 // 2^n of a larger argument overflows
  static constexpr float tanh_is_one = 9.5f;
  static constexpr float q[] = {0x1.fffffep-2f, 0x1.5554b0p-3f, 0x1.555674p-5f, 0x1.122784p-7f, 0x1.6bec04p-10f};
};

template <>
struct Exp<double> {
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double round_bits = 0x1.8p52;
  static constexpr double log2e = 0x1.71547652b82fep0, ln2_high = 0x1.62e42fefa39efp-1, ln2_low = 0x1.abc9e3b39803fp-56;
  static constexpr double lowest = -747.0, highest = 710.5;
  static constexpr double one_power = 709.43;
  static constexpr double tanh_is_one = 19.5;
  static constexpr double q[] = {0x1.0000000000005p-1,  0x1.5555555555539p-3,  0x1.55555555522adp-5,
                                 0x1.1111111118fc3p-7,  0x1.6c16c17ede84ap-10, 0x1.a01a01750ef58p-13,
                                 0x1.a019a7661dae0p-16, 0x1.71de880cce652p-19, 0x1.28a1e9959fbdbp-22,
                                 0x1.ae6babac39bebp-26};
};

// Comparisons are written so that a NaN falls through to x.
template <class T>
FASTRNN_INLINE vec<T> at_most(vec<T> x, T bound) {
  const vec<T> b = broadcast(bound);
  return x > b ? b : x;
}

template <class T>
FASTRNN_INLINE vec<T> at_least(vec<T> x, T bound) {
  const vec<T> b = broadcast(bound);
  return x < b ? b : x;
}

// x = n ln2 + r, and expm1_r = e^r - 1.
template <class T>
struct Reduced {
  vec<T> expm1_r;
  ivec<T> n;
};

template <class T>
FASTRNN_INLINE Reduced<T> reduce(vec<T> x) {
  using E = Exp<T>;
  const vec<T> shift = broadcast(E::round_bits);
  const vec<T> rounded = fma(x, broadcast(E::log2e), shift);
  const vec<T> n = rounded - shift;
  vec<T> r = fma(n, broadcast(-E::ln2_high), x);
  r = fma(n, broadcast(-E::ln2_low), r);
  constexpr int degree = int(sizeof(E::q) / sizeof(T)) - 1;
  vec<T> q = broadcast(E::q[degree]);
#pragma GCC unroll 16
  for (int i = degree - 1; i >= 0; --i) q = fma(q, r, broadcast(E::q[i]));
  return {fma(r * r, q, r), (ivec<T>)rounded - (ivec<T>)shift};
}

// 2^n as a float, n in [1 - bias, bias].
template <class T>
FASTRNN_INLINE vec<T> power_of_two(ivec<T> n) {
  return (vec<T>)((n + Exp<T>::bias) << Exp<T>::mantissa_bits);
}

template <class T>
FASTRNN_INLINE vec<T> exp(vec<T> x) {
  const Reduced<T> e = reduce<T>(at_least<T>(at_most<T>(x, Exp<T>::highest), Exp<T>::lowest));
  // Two powers: one alone can neither overflow to inf nor reach the smallest numbers.
  const ivec<T> half = e.n >> 1;
  const vec<T> scale = power_of_two<T>(half);
  return fma(e.expm1_r, scale, scale) * power_of_two<T>(e.n - half);
}

// 1 / (1 + e^-x). The denominator 1 + 2^n e^r is built as (1 + 2^n) + 2^n (e^r - 1): one operation less than through e^-x.
template <class T>
FASTRNN_INLINE vec<T> sigmoid(vec<T> x) {
  // Above the bound the result is a denormal, flushed to zero; below it, exactly 1.
  const Reduced<T> e = reduce<T>(at_least<T>(at_most<T>(-x, Exp<T>::one_power), -Exp<T>::one_power + T(2)));
  const vec<T> scale = power_of_two<T>(e.n);
  const vec<T> one = broadcast(T(1));
  return one / fma(e.expm1_r, scale, one + scale);
}

// t / (t + 2) with t = e^2|x| - 1, relatively accurate for small x. (With e^-2|x| the error near 1 doubles.)
template <class T>
FASTRNN_INLINE vec<T> tanh(vec<T> x) {
  const ivec<T> sign_bit = (ivec<T>)broadcast(T(-0.0));
  const vec<T> a = at_most<T>((vec<T>)((ivec<T>)x & ~sign_bit), Exp<T>::tanh_is_one);
  const Reduced<T> e = reduce<T>(a + a);
  const vec<T> scale = power_of_two<T>(e.n);
  const vec<T> t = fma(e.expm1_r, scale, scale - broadcast(T(1)));
  const vec<T> magnitude = t / (t + broadcast(T(2)));
  return (vec<T>)((ivec<T>)magnitude | ((ivec<T>)x & sign_bit));
}

}  // namespace
}  // namespace fastrnn
