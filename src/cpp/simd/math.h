// exp, sigmoid and tanh of a vector, from FMA and IEEE operations only: the same bits on every ISA that has an FMA.
//
// Contracts (checked in tests/test_functions.py by sweeping bit patterns on every ISA):
//   function  range         error, float32 / float64   special values
//   exp       all           <= 2 / 2 ULP               NaN -> NaN, -inf -> 0, +inf -> +inf
//   sigmoid   all           <= 2 / 2 ULP               NaN -> NaN, -inf -> 0, +inf -> 1
//   tanh      all           <= 2 / 2 ULP, odd          NaN -> NaN, -+inf -> -+1, -+0 -> -+0
// Without an FMA (baseline) a quarter of an ULP more. A result below the smallest normal number may be flushed to zero
// (callers run with denormals flushed).
#pragma once

#include "simd/vec.h"

namespace fastrnn {
namespace {

// e^r - 1 = r + r^2 q(r) on |r| <= ln(2)/2. q is our own minimax fit (Remez, 60 digits)
// of the relative error: 1.3e-8 in degree 4 (float32), 1.8e-17 in degree 9 (float64).
// q_up is the same for 0 <= r <= ln(2): 2.9e-10 in degree 5 and 2.9e-19 in degree 10.
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
  static constexpr float q_up[] = {0x1.fffffep-2f, 0x1.5555bcp-3f,  0x1.554608p-5f,
                                   0x1.121906p-7f, 0x1.5a5c38p-10f, 0x1.18da42p-12f};
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
  static constexpr double q_up[] = {0x1.0000000000001p-1,  0x1.5555555555468p-3,  0x1.555555555c2d8p-5,
                                    0x1.1111110f7efd6p-7,  0x1.6c16c1d6fc16cp-10, 0x1.a019efcf0adf9p-13,
                                    0x1.a01bf1f9b5aefp-16, 0x1.71ba75d9e9a56p-19, 0x1.29951b931bf89p-22,
                                    0x1.94dd1f9fbaca5p-26, 0x1.8aa3d12aaea45p-29};
};

// Comparisons are written so that a NaN falls through to x.
template <class V>
FASTRNN_INLINE V at_most(V x, element<V> bound) {
  const V b = broadcast<V>(bound);
  return x > b ? b : x;
}

template <class V>
FASTRNN_INLINE V at_least(V x, element<V> bound) {
  const V b = broadcast<V>(bound);
  return x < b ? b : x;
}

// c[0] + c[1] x + ... + c[N - 1] x^(N - 1), by halves (Estrin): half the latency of Horner's chain, which a step of one
// row waits for. powers[i] is x^(2^i).
template <int N, class V>
FASTRNN_INLINE V polynomial(const element<V>* c, const V* powers) {
  if constexpr (N == 1) {
    return broadcast<V>(c[0]);
  } else {
    constexpr int log = N > 8 ? 3 : N > 4 ? 2 : N > 2 ? 1 : 0, half = 1 << log;
    return fma(polynomial<N - half>(c + half, powers), powers[log], polynomial<half>(c, powers));
  }
}

template <class V, class T, int N>
FASTRNN_INLINE V polynomial(const T (&c)[N], V x) {
  const V x2 = x * x, x4 = x2 * x2;
  const V powers[] = {x, x2, x4, x4 * x4};
  return polynomial<N>(c, powers);
}

// x = n ln2 + r, and expm1_r = e^r - 1, r + r^2 q(r).
template <class V>
struct Reduced {
  V expm1_r;
  ivec<V> n;
};

// rounded: x / ln2 to the nearest or lower integer, with round_bits added.
template <class V, class T, int N>
FASTRNN_INLINE Reduced<V> reduce(const T (&q)[N], V x, V rounded) {
  using E = Exp<element<V>>;
  const V shift = broadcast<V>(E::round_bits), n = rounded - shift;
  V r = fma(n, broadcast<V>(-E::ln2_high), x);
  r = fma(n, broadcast<V>(-E::ln2_low), r);
  return {fma(r * r, polynomial(q, r), r), (ivec<V>)rounded - (ivec<V>)shift};
}

// 2^n as a float, n in [1 - bias, bias].
template <class V>
FASTRNN_INLINE V power_of_two(ivec<V> n) {
  return (V)((n + Exp<element<V>>::bias) << Exp<element<V>>::mantissa_bits);
}

template <class V>
FASTRNN_INLINE V exp(V x) {
  using E = Exp<element<V>>;
  const V a = at_least(at_most(x, E::highest), E::lowest);
  const Reduced<V> e = reduce(E::q, a, fma(a, broadcast<V>(E::log2e), broadcast<V>(E::round_bits)));
  // Two powers: one alone can neither overflow to inf nor reach the smallest numbers.
  const ivec<V> half = e.n >> 1;
  const V scale = power_of_two<V>(half);
  return fma(e.expm1_r, scale, scale) * power_of_two<V>(e.n - half);
}

// 1 / (1 + e^-x). With e^-x = 2^n (1 + p) the denominator is 2^n (1 + (p + 2^-n)): one rounding in units of the result,
// where 1 + e^-x and (1 + 2^n) + 2^n p both reach 2.4 ULP.
//
// Where e^-x overflows or vanishes the result is put in at the end: clamping x first would cost its 12 cycles in the
// chain of latencies, comparing beside the chain costs two. A NaN fails both comparisons.
template <class V>
FASTRNN_INLINE V sigmoid(V x) {
  using E = Exp<element<V>>;
  constexpr element<V> bound = E::one_power;
  const Reduced<V> e = reduce(E::q, -x, fma(x, broadcast<V>(-E::log2e), broadcast<V>(E::round_bits)));
  const V scale = power_of_two<V>(e.n);
  const V y = broadcast<V>(1) / fma(e.expm1_r + power_of_two<V>(-e.n), scale, scale);
  const V below = x < broadcast<V>(-bound) ? V{} : y;
  return x > broadcast<V>(bound - 2) ? broadcast<V>(1) : below;
}

// h / (1 + h) with h = (e^2|x| - 1) / 2 = 2^(n-1) (1 + p) - 1/2. n is rounded down, so that p is positive and nothing
// cancels. Where h is small the quotient's 2.5 ULP are mostly the rounding of 1 + h: h - h (h / (1 + h)) hides it.
template <class V>
FASTRNN_INLINE V tanh(V x) {
  using E = Exp<element<V>>;
  const ivec<V> sign_bit = (ivec<V>)broadcast<V>(-0.0);
  const V a = (V)((ivec<V>)x & ~sign_bit), shift = broadcast<V>(E::round_bits);
  const V rounded = fma(a, broadcast<V>(2 * E::log2e), broadcast<V>(-0.5)) + shift;
  const Reduced<V> e = reduce(E::q_up, a + a, rounded);
  const V scale = power_of_two<V>(e.n - 1);
  const V h = fma(e.expm1_r, scale, scale - broadcast<V>(0.5));
  const V quotient = h / (h + broadcast<V>(1));
  const V y = a < broadcast<V>(element<V>(0.35)) ? fma(-h, quotient, h) : quotient;
  const V bounded = a > broadcast<V>(E::tanh_is_one) ? broadcast<V>(1) : y;
  return (V)((ivec<V>)bounded | ((ivec<V>)x & sign_bit));
}

}  // namespace
}  // namespace fastrnn
