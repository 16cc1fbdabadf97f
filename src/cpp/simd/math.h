// exp, sigmoid and tanh of a vector, from FMA and IEEE operations only: the same bits on every ISA that has an FMA.
//
// Contracts (checked in tests/test_functions.py by sweeping bit patterns on every ISA):
//   function  range         error, float32 / float64   special values
//   exp       all           <= 2 / 2 ULP               NaN -> NaN, -inf -> 0, +inf -> +inf
//   sigmoid   all           <= 2 / 2 ULP               NaN -> NaN, -inf -> 0, +inf -> 1
//   tanh      all           <= 2 / 2 ULP, odd          NaN -> NaN, -+inf -> -+1, -+0 -> -+0
// A result below the smallest normal number may be flushed to zero (callers run with denormals flushed).
#pragma once

#include "simd/vec.h"

namespace fastrnn {
namespace {

// e^r - 1 = r + r^2 q(r) on |r| <= ln(2)/2. q is our own minimax fit (Remez, 60 digits) of the relative error:
// 1.3e-8 in degree 4 (float32), 1.8e-17 in degree 9 (float64). tanh(x) = x + x^3 tanh_odd(x^2) on |x| <= 0.35, fitted in
// the same way: 4.8e-10 and 9.7e-18.
template <class T>
struct Exp;

template <>
struct Exp<float> {
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr float round_bits = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  static constexpr float log2e = 0x1.715476p0f;
  static constexpr float ln2_high = kHasFma ? 0x1.62e43p-1f : 0x1.62e0000000000p-1f;  // 12 bits: n * ln2_high is exact
  static constexpr float ln2_low = kHasFma ? -0x1.05c61p-29f : 0x1.0bfbe80000000p-15f;
  static constexpr float lowest = -105.0f, highest = 89.5f;  // beyond: 0, inf
  static constexpr float one_power = 88.37f;                 // 2^n of a larger argument overflows
  static constexpr float tanh_is_one = 9.5f;
  static constexpr float q[] = {0x1.fffffep-2f, 0x1.5554b0p-3f, 0x1.555674p-5f, 0x1.122784p-7f, 0x1.6bec04p-10f};
  static constexpr float tanh_odd[] = {-0x1.55554ep-2f, 0x1.110be8p-3f, -0x1.b81886p-5f, 0x1.3e3160p-6f};
};

template <>
struct Exp<double> {
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double round_bits = 0x1.8p52;
  static constexpr double log2e = 0x1.71547652b82fep0;
  static constexpr double ln2_high = kHasFma ? 0x1.62e42fefa39efp-1 : 0x1.62e42fefa2000p-1;  // 40 bits
  static constexpr double ln2_low = kHasFma ? 0x1.abc9e3b39803fp-56 : 0x1.9ef35793c7673p-41;
  static constexpr double lowest = -747.0, highest = 710.5;
  static constexpr double one_power = 709.43;
  static constexpr double tanh_is_one = 19.5;
  static constexpr double q[] = {0x1.0000000000005p-1,  0x1.5555555555539p-3,  0x1.55555555522adp-5,
                                 0x1.1111111118fc3p-7,  0x1.6c16c17ede84ap-10, 0x1.a01a01750ef58p-13,
                                 0x1.a019a7661dae0p-16, 0x1.71de880cce652p-19, 0x1.28a1e9959fbdbp-22,
                                 0x1.ae6babac39bebp-26};
  static constexpr double tanh_odd[] = {-0x1.55555555554c2p-2,  0x1.11111110fe019p-3,  -0x1.ba1ba19f142b9p-5,
                                        0x1.664f3f3a01e6dp-6,   -0x1.226c708c0b1dfp-7, 0x1.d66ed203d60c1p-9,
                                        -0x1.770c1d1765810p-10, 0x1.f1b0d8193e880p-12};
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

template <class T, int N>
FASTRNN_INLINE vec<T> polynomial(const T (&c)[N], vec<T> x) {
  vec<T> y = broadcast(c[N - 1]);
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; --i) y = fma(y, x, broadcast(c[i]));
  return y;
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
  const vec<T> q = polynomial<T>(E::q, r);
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

// 1 / (1 + e^-x). With e^-x = 2^n (1 + p) the denominator is 2^n (1 + (p + 2^-n)): one rounding in units of the result,
// where 1 + e^-x and (1 + 2^n) + 2^n p both reach 2.4 ULP.
template <class T>
FASTRNN_INLINE vec<T> sigmoid(vec<T> x) {
  // Beyond the bounds the result is a denormal, flushed to zero, or exactly 1.
  constexpr T bound = Exp<T>::one_power;
  const Reduced<T> e = reduce<T>(at_least<T>(at_most<T>(-x, bound), T(2) - bound));
  const vec<T> scale = power_of_two<T>(e.n);
  return broadcast(T(1)) / fma(e.expm1_r + power_of_two<T>(-e.n), scale, scale);
}

// t / (t + 2) with t = e^2|x| - 1, and an odd polynomial where that loses bits (2.6 ULP for small x).
template <class T>
FASTRNN_INLINE vec<T> tanh(vec<T> x) {
  const ivec<T> sign_bit = (ivec<T>)broadcast(T(-0.0));
  const vec<T> magnitude = (vec<T>)((ivec<T>)x & ~sign_bit);
  const vec<T> a = at_most<T>(magnitude, Exp<T>::tanh_is_one);
  const Reduced<T> e = reduce<T>(a + a);
  const vec<T> scale = power_of_two<T>(e.n);
  const vec<T> t = fma(e.expm1_r, scale, scale - broadcast(T(1)));
  const vec<T> large = t / (t + broadcast(T(2)));
  const vec<T> square = a * a;
  const vec<T> small = fma(a * square, polynomial<T>(Exp<T>::tanh_odd, square), a);
  const vec<T> y = a < broadcast(T(0.35)) ? small : large;
  return (vec<T>)((ivec<T>)y | ((ivec<T>)x & sign_bit));
}

}  // namespace
}  // namespace fastrnn
