// exp, sigmoid, tanh and sigmoid times tanh of vectors, from FMA and IEEE operations only: the same bits on every ISA
// that has an FMA.
//
// Contracts (checked in tests/test_functions.py by sweeping bit patterns on every ISA):
//   function    range         error, float32 / float64   special values
//   exp         all           <= 2 / 2 ULP               NaN -> NaN, -inf -> 0, +inf -> +inf
//   sigmoid     all           <= 2 / 2 ULP               NaN -> NaN, -inf -> 0, +inf -> 1
//   tanh        all           <= 2 / 2 ULP, odd          NaN -> NaN, -+inf -> -+1, -+0 -> -+0
//   gated_tanh  all           <= 4 / 4 ULP, odd in x     as sigmoid and tanh
// Without an FMA (baseline) a quarter of an ULP more. A result below the smallest normal number may be flushed to zero
// (callers run with denormals flushed), of gated_tanh one below twice that.
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
  static constexpr float tanh_is_one = 9.5f, large_odds = 0x1p25f, sigmoid_is_one = 17.5f;
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
  static constexpr double tanh_is_one = 19.5, large_odds = 0x1p54, sigmoid_is_one = 37.5;
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

// q(F r) F, so that (e^(F r) - 1) / F = r + r^2 of it. F is 1, -1 or 2, whose powers change no bits of q.
template <int F, class V>
FASTRNN_INLINE V quadratic(V r) {
  using E = Exp<element<V>>;
  constexpr int N = int(sizeof(E::q) / sizeof(E::q[0]));
  element<V> q[N];
  for (int i = 0, power = F; i < N; ++i, power *= F) q[i] = power * E::q[i];
  return polynomial<N>(q, r);
}

// (e^(F r) - 1) / F, where x = n ln2 + r and F is 1 or -1.
template <int F, class V>
FASTRNN_INLINE V expm1_of_rest(V x, V n) {
  using E = Exp<element<V>>;
  const V r = fma(n, broadcast<V>(-E::ln2_low), fma(n, broadcast<V>(-E::ln2_high), x));
  return fma(r * r, quadratic<F>(r), r);
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
  return fma(expm1_of_rest<1>(a, e.n), scale, scale) * power_of_two<V>((uvec<V>)(n - half + E::bias));
}

template <class V>
struct Fraction {
  V numerator, denominator;
};
template <class V>
FASTRNN_INLINE V value(Fraction<V> f) {
  return f.numerator / f.denominator;
}

// sigmoid(x) = 1 / (1 + e^-x) = 2^n / (1 + (2^n - p)), where e^-x = 2^-n (1 - p): two roundings in units of the result,
// where 1 + e^-x and (1 + 2^n) - p both reach 2.4 ULP.
//
// Where e^-x overflows or vanishes 0 / 1 and 1 / 1 are put in, which is two cycles in the chain of latencies. Clamping
// x first is four instructions less, but more cycles (Zen 4, a step of LSTM H16 73 ns so and 71 as it is, H32 154 and
// 150). A NaN fails both comparisons.
template <class V>
FASTRNN_INLINE Fraction<V> sigmoid_fraction(V x) {
  using E = Exp<element<V>>;
  const V one = broadcast<V>(1);
  const Integer<V> e = nearest(x, E::log2e);
  const V p = expm1_of_rest<-1>(x, e.n), power = power_of_two<V>(e.biased), sum = one + (power - p);
  const V is_one = broadcast<V>(E::sigmoid_is_one), is_zero = broadcast<V>(-E::one_power);
  const V numerator = x > is_one ? one : power, denominator = x > is_one ? one : sum;
  return {x < is_zero ? V{} : numerator, x < is_zero ? one : denominator};
}

template <class V>
FASTRNN_INLINE V sigmoid(V x) {
  return value(sigmoid_fraction(x));
}

template <class V>
FASTRNN_INLINE uvec<V> sign_of(V x) {
  return (uvec<V>)x & (uvec<V>)broadcast<V>(-0.0);
}

// h = (e^2a - 1) / 2, so that tanh(a) = h / (1 + h), for a >= 0. With h = 2^n p + (2^n - 1) / 2, where p is half of
// e^2r - 1, nothing cancels but where n is 1 and p negative, which costs a tenth of an ULP. Where tanh is 1, h is so
// large that h + 1 is h.
template <class V>
FASTRNN_INLINE V tanh_odds(V a) {
  using E = Exp<element<V>>;
  const Integer<V> e = nearest(a, 2 * E::log2e);
  const V p = half_expm1_of_rest(a, e.n), scale = power_of_two<V>(e.biased);
  const V h = fma(p, scale, fma(scale, broadcast<V>(0.5), broadcast<V>(-0.5)));
  return a > broadcast<V>(E::tanh_is_one) ? broadcast<V>(E::large_odds) : h;
}

// Where h is small the quotient's 2.5 ULP are mostly the rounding of 1 + h: h - h (h / (1 + h)) hides it.
template <class V>
FASTRNN_INLINE V tanh(V x) {
  const uvec<V> sign = sign_of(x);
  const V a = (V)((uvec<V>)x ^ sign), h = tanh_odds(a);
  const V quotient = h / (h + broadcast<V>(1));
  const V y = a < broadcast<V>(element<V>(0.35)) ? fma(-h, quotient, h) : quotient;
  return (V)((uvec<V>)y | sign);
}

// sigmoid(gate) tanh(x), as an LSTM has it twice: with n / d for the gate n h / (d + d h). One division instead of two,
// and after h a shorter chain of latencies than tanh and a product. Zen 4, steps of one row, I1, from C++: H16 73 to 71
// ns, H20 101 to 97, H32 157 to 150, H40 219 to 210; B16 H20 and H32 0.97, training 0.99 to 1.01.
template <class V>
FASTRNN_INLINE V gated_tanh(V gate, V x) {
  const Fraction<V> s = sigmoid_fraction(gate);
  const uvec<V> sign = sign_of(x);
  const V h = tanh_odds((V)((uvec<V>)x ^ sign)), signed_n = (V)((uvec<V>)s.numerator | sign);
  return signed_n * h / fma(s.denominator, h, s.denominator);
}

}  // namespace
}  // namespace fastrnn
