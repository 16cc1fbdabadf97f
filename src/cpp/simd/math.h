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

// e^r - 1 = r + r^2 q(r) on |r| <= ln(2)/2. q is our own minimax fit (Remez, 60 digits) of the relative error: 1.3e-8
// in degree 4 (float32), 1.8e-17 in degree 9 (float64).
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
  static constexpr bool tanh_needs_ln2_low = !kHasFma;  // else ln2_high errs by 1.9e-9, 0.06 ULP
  static constexpr float q[] = {0x1.fffffep-2f, 0x1.5554b0p-3f, 0x1.555674p-5f, 0x1.122784p-7f, 0x1.6bec04p-10f};
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
  static constexpr bool tanh_needs_ln2_low = true;
  static constexpr double q[] = {0x1.0000000000005p-1,  0x1.5555555555539p-3,  0x1.55555555522adp-5,
                                 0x1.1111111118fc3p-7,  0x1.6c16c17ede84ap-10, 0x1.a01a01750ef58p-13,
                                 0x1.a019a7661dae0p-16, 0x1.71de880cce652p-19, 0x1.28a1e9959fbdbp-22,
                                 0x1.ae6babac39bebp-26};
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

// c[0] + c[1] x + ... + c[N - 1] x^(N - 1): up to six by pairs in x^2, more by fours in x^4. Half the latency of
// Horner's chain, which a step of one row waits for. powers[i] is x^(2^i).
template <int N, class V>
FASTRNN_INLINE V polynomial(const element<V>* c, const V* powers) {
  if constexpr (N == 1) {
    return broadcast<V>(c[0]);
  } else {
    constexpr int log = N > 6 ? 2 : N > 2 ? 1 : 0, first = 1 << log;
    return fma(polynomial<N - first>(c + first, powers), powers[log], polynomial<first>(c, powers));
  }
}

template <int N, class V>
FASTRNN_INLINE V polynomial(const element<V>* c, V x) {
  const V x2 = x * x, powers[] = {x, x2, x2 * x2};
  return polynomial<N>(c, powers);
}

// An integer, as a number and with the exponent's bias added: only the latter's low bits count, as a shift by
// mantissa_bits drops the others.
template <class V>
struct Integer {
  V n;
  uvec<V> biased;
};

// The integer nearest to x * factor. The sum with round_bits and the bias has no bits for a fraction.
template <class V>
FASTRNN_INLINE Integer<V> nearest(V x, element<V> factor) {
  using E = Exp<element<V>>;
  const V shift = broadcast<V>(E::round_bits + E::bias), sum = fma(x, broadcast<V>(factor), shift);
  return {sum - shift, (uvec<V>)sum};
}

// 2^n for n in [1 - bias, bias]. Of any other n, whose callers put in their result later, it is some number.
template <class V>
FASTRNN_INLINE V power_of_two(uvec<V> biased) {
  return (V)(biased << Exp<element<V>>::mantissa_bits);
}

// q(F r) F, so that (e^(F r) - 1) / F = r + r^2 of it. F is 1 or 2, whose powers change no bits of q.
template <int F, class V>
FASTRNN_INLINE V quadratic(V r) {
  using E = Exp<element<V>>;
  constexpr int N = int(sizeof(E::q) / sizeof(E::q[0]));
  element<V> q[N];
  for (int i = 0, power = F; i < N; ++i, power *= F) q[i] = power * E::q[i];
  return polynomial<N>(q, r);
}

// e^r - 1, where x = n ln2 + r.
template <class V>
FASTRNN_INLINE V expm1_of_rest(V x, V n) {
  using E = Exp<element<V>>;
  const V r = fma(n, broadcast<V>(-E::ln2_low), fma(n, broadcast<V>(-E::ln2_high), x));
  return fma(r * r, quadratic<1>(r), r);
}

// (e^2r - 1) / 2, where x = n ln2 / 2 + r, for tanh. An error of r counts most where n is 1, and less with every n, so
// that one part of ln2 may be enough. Where it is not, what comes of the second is added last.
template <class V>
FASTRNN_INLINE V half_expm1_of_rest(V x, V n) {
  using E = Exp<element<V>>;
  const V high = fma(n, broadcast<V>(-E::ln2_high / 2), x);
  if constexpr (E::tanh_needs_ln2_low) {
    const V low = n * broadcast<V>(-E::ln2_low / 2), r = high + low;
    return high + fma(r * r, quadratic<2>(r), low);
  } else {
    return fma(high * high, quadratic<2>(high), high);
  }
}

template <class V>
FASTRNN_INLINE V exp(V x) {
  using E = Exp<element<V>>;
  const V a = at_least(at_most(x, E::highest), E::lowest);
  const Integer<V> e = nearest(a, E::log2e);
  // Two powers: one alone can neither overflow to inf nor reach the smallest numbers.
  const ivec<V> n = (ivec<V>)e.biased - (ivec<V>)broadcast<V>(E::round_bits + E::bias), half = n >> 1;
  const V scale = power_of_two<V>((uvec<V>)(half + E::bias));
  return fma(expm1_of_rest(a, e.n), scale, scale) * power_of_two<V>((uvec<V>)(n - half + E::bias));
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
  constexpr element<uvec<V>> exponents_of_one = element<uvec<V>>(2 * E::bias) << E::mantissa_bits;
  const Integer<V> e = nearest(x, -E::log2e);
  const V p = expm1_of_rest(-x, e.n);
  const V scale = power_of_two<V>(e.biased), inverse = (V)(exponents_of_one - (uvec<V>)scale);
  const V y = broadcast<V>(1) / fma(p + inverse, scale, scale);
  const V below = x < broadcast<V>(-bound) ? V{} : y;
  return x > broadcast<V>(bound - 2) ? broadcast<V>(1) : below;
}

// h / (1 + h) with h = (e^2|x| - 1) / 2 = 2^n p + (2^n - 1) / 2, p being half of what it was above. Nothing cancels but
// where n is 1 and p negative, which costs a tenth of an ULP. Where h is small the quotient's 2.5 ULP are mostly the
// rounding of 1 + h: h - h (h / (1 + h)) hides it.
template <class V>
FASTRNN_INLINE V tanh(V x) {
  using E = Exp<element<V>>;
  const uvec<V> sign_bit = (uvec<V>)broadcast<V>(-0.0);
  const V a = (V)((uvec<V>)x & ~sign_bit);
  const Integer<V> e = nearest(a, 2 * E::log2e);
  const V p = half_expm1_of_rest(a, e.n), scale = power_of_two<V>(e.biased);
  const V h = fma(p, scale, fma(scale, broadcast<V>(0.5), broadcast<V>(-0.5)));
  const V quotient = h / (h + broadcast<V>(1));
  const V y = a < broadcast<V>(element<V>(0.35)) ? fma(-h, quotient, h) : quotient;
  const V bounded = a > broadcast<V>(E::tanh_is_one) ? broadcast<V>(1) : y;
  return (V)((uvec<V>)bounded | ((uvec<V>)x & sign_bit));
}

}  // namespace
}  // namespace fastrnn
