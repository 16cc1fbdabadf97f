// One vector register of T. How wide it is only this folder knows: FASTRNN_VECTOR_BYTES, set per row of
// cmake/Isas.cmake.
//
// Compiled once per ISA, so everything lives in an anonymous namespace: an inline function with external linkage
// would be merged by the linker across ISAs and could hand AVX-512 code to an AVX2 machine.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Clang leaves vector helpers out of line in large kernels, where a call spills every accumulator.
#define FASTRNN_INLINE [[gnu::always_inline]] inline

namespace fastrnn {
namespace {

template <class T, int Bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(Bytes)));
};
template <class T>
using vec = typename VectorOf<T, FASTRNN_VECTOR_BYTES>::type;

// A half or a quarter of a register, for a last block of units that needs no more. They pay with AVX-512: where there
// is one 512-bit FMA a cycle two halves go through the pipes in the time of one whole, and several gates or rows share
// a whole vector (gemm/part.h). Nothing else uses them.
template <class T, int Parts>
using part_vec = typename VectorOf<T, FASTRNN_VECTOR_BYTES / Parts>::type;
constexpr bool kPartsPay = FASTRNN_VECTOR_BYTES == 64;

// In all templates V is vec<T> or a part of it, and L its lanes.
template <class V>
using element = decltype(+V{}[0]);

template <class V>
constexpr int kLanesOf = int(sizeof(V) / sizeof(element<V>));
template <class T>
constexpr int kLanes = FASTRNN_VECTOR_BYTES / int(sizeof(T));
// How many of V a whole register holds.
template <class V>
constexpr int kPartsOf = FASTRNN_VECTOR_BYTES / int(sizeof(V));

// Accumulators a register tile may hold: 32 registers leave 24 beside weights and a broadcast, 16 leave 12.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif

// Sums that one row alone keeps under way: as many as hide the latency of an FMA, four cycles, on one unit of 512 bits
// or two narrower ones. More would put off the equations of the first block, which overlap with the product of the
// next, and eight panels of a power of two share the sets of the first-level cache. T100 on one thread, us, with four /
// with eight: RNN H128 with AVX-512 (Zen 4) 90 / 103, with AVX2 (Zen 3) 127 / 117.
#if FASTRNN_VECTOR_BYTES == 64
constexpr int kChains = 4;
#else
constexpr int kChains = 8;
#endif
// With 512 bits a cell of four sums still gains from eight, two blocks at once, where its weights come from the
// first-level cache (`in_pairs` in sweep/one_row.h): the blocks share a broadcast, and the gates of both come before
// either h. T100 on one thread, us, with four / with eight, Cascade Lake: GRU H32 32.0 / 25.2, but LSTM H128 425 / 442.
constexpr bool kPairsPay = kChains == 4;

// Whether a tile of rows asks for weights of the blocks that come next, a cache line for each step of k.
template <class V>
constexpr bool kAsksForWeights = sizeof(V) == 64;

// Integer vectors as wide as V, for exponents and sign bits. Unsigned lanes wrap around; overflow of signed ones is
// undefined.
template <class T>
struct IntegerFor;
template <>
struct IntegerFor<float> {
  using Signed = int32_t;
  using Unsigned = uint32_t;
};
template <>
struct IntegerFor<double> {
  using Signed = int64_t;
  using Unsigned = uint64_t;
};
template <class V>
using ivec = typename VectorOf<typename IntegerFor<element<V>>::Signed, int(sizeof(V))>::type;
template <class V>
using uvec = typename VectorOf<typename IntegerFor<element<V>>::Unsigned, int(sizeof(V))>::type;

template <class V>
FASTRNN_INLINE V load(const element<V>* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
FASTRNN_INLINE void store(element<V>* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

#if FASTRNN_VECTOR_BYTES == 64
FASTRNN_INLINE void store_past(float* p, vec<float> v) { _mm512_stream_ps(p, v); }
FASTRNN_INLINE void store_past(double* p, vec<double> v) { _mm512_stream_pd(p, v); }
FASTRNN_INLINE void settle() { _mm_sfence(); }
#elif FASTRNN_VECTOR_BYTES == 32
FASTRNN_INLINE void store_past(float* p, vec<float> v) { _mm256_stream_ps(p, v); }
FASTRNN_INLINE void store_past(double* p, vec<double> v) { _mm256_stream_pd(p, v); }
FASTRNN_INLINE void settle() { _mm_sfence(); }
#else
FASTRNN_INLINE void settle() {}
#endif

// The same, of a whole register by choice past the caches: no line is read before it is written, and none is pushed out
// of them. p is then a multiple of the vector's bytes, and `settle` is due before other threads may read what was
// stored. (Where there is no such store it is an ordinary one.)
template <class V>
FASTRNN_INLINE void store(element<V>* p, V v, [[maybe_unused]] bool past_caches) {
#if FASTRNN_VECTOR_BYTES >= 32
  if constexpr (sizeof(V) == FASTRNN_VECTOR_BYTES) {
    if (past_caches) return store_past(p, v);
  }
#endif
  store(p, v);
}

// x - 0 keeps every bit of x; x + 0 would turn -0 into +0.
template <class V>
FASTRNN_INLINE V broadcast(element<V> x) {
  return x - V{};
}

template <int... I>
struct Lanes {};
template <int N, int... I>
struct FirstLanes : FirstLanes<N - 1, N - 1, I...> {};
template <int... I>
struct FirstLanes<0, I...> {
  using type = Lanes<I...>;
};

// a[0] b[0] a[1] b[1] ... within each sixteen bytes, from their lane From on.
template <int From, class V, int... I>
FASTRNN_INLINE V zip(V a, V b, Lanes<I...>) {
  constexpr int L = kLanesOf<V>, Q = 16 / int(sizeof(element<V>));
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (I / Q * Q + From + I % Q / 2 + I % 2 * L)...);
#else
  return __builtin_shuffle(a, b, ivec<V>{(I / Q * Q + From + I % Q / 2 + I % 2 * L)...});
#endif
}

template <class V>
FASTRNN_INLINE V zip_low(V a, V b) {
  return zip<0>(a, b, typename FirstLanes<kLanesOf<V>>::type{});
}
template <class V>
FASTRNN_INLINE V zip_high(V a, V b) {
  return zip<8 / int(sizeof(element<V>))>(a, b, typename FirstLanes<kLanesOf<V>>::type{});
}

// A whole vector, where the pointer or the value says of what.
FASTRNN_INLINE vec<float> load(const float* p) { return load<vec<float>>(p); }
FASTRNN_INLINE vec<double> load(const double* p) { return load<vec<double>>(p); }
FASTRNN_INLINE vec<float> broadcast(float x) { return broadcast<vec<float>>(x); }
FASTRNN_INLINE vec<double> broadcast(double x) { return broadcast<vec<double>>(x); }

#if defined(__FMA__) || defined(__aarch64__)
constexpr bool kHasFma = true;
#else
constexpr bool kHasFma = false;
#endif

// a * b + c with one rounding. No vector expression says it, and __builtin_fmaf lane by lane is at the mercy of GCC's
// vectoriser, which fell back to single lanes in a kernel that starts, multiplies and finishes in one function. A
// machine without FMA rounds twice: correct, but outside the promise of equal bits.
#if FASTRNN_VECTOR_BYTES == 64
FASTRNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
FASTRNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
FASTRNN_INLINE part_vec<float, 2> fma(part_vec<float, 2> a, part_vec<float, 2> b, part_vec<float, 2> c) {
  return _mm256_fmadd_ps(a, b, c);
}
FASTRNN_INLINE part_vec<double, 2> fma(part_vec<double, 2> a, part_vec<double, 2> b, part_vec<double, 2> c) {
  return _mm256_fmadd_pd(a, b, c);
}
FASTRNN_INLINE part_vec<float, 4> fma(part_vec<float, 4> a, part_vec<float, 4> b, part_vec<float, 4> c) {
  return _mm_fmadd_ps(a, b, c);
}
FASTRNN_INLINE part_vec<double, 4> fma(part_vec<double, 4> a, part_vec<double, 4> b, part_vec<double, 4> c) {
  return _mm_fmadd_pd(a, b, c);
}
#elif defined(__FMA__)
FASTRNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
FASTRNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
#elif defined(__aarch64__)
FASTRNN_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return vfmaq_f32(c, a, b); }
FASTRNN_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return vfmaq_f64(c, a, b); }
#else
template <class V>
FASTRNN_INLINE V fma(V a, V b, V c) {
  return a * b + c;
}
#endif

// Correctly rounded. (By a mask: of the plain one GCC 12 warns that it may read what nobody wrote.)
#if FASTRNN_VECTOR_BYTES == 64
FASTRNN_INLINE vec<float> sqrt(vec<float> v) { return _mm512_maskz_sqrt_ps(0xffff, v); }
FASTRNN_INLINE vec<double> sqrt(vec<double> v) { return _mm512_maskz_sqrt_pd(0xff, v); }
#elif FASTRNN_VECTOR_BYTES == 32
FASTRNN_INLINE vec<float> sqrt(vec<float> v) { return _mm256_sqrt_ps(v); }
FASTRNN_INLINE vec<double> sqrt(vec<double> v) { return _mm256_sqrt_pd(v); }
#elif defined(__SSE2__)
FASTRNN_INLINE vec<float> sqrt(vec<float> v) { return _mm_sqrt_ps(v); }
FASTRNN_INLINE vec<double> sqrt(vec<double> v) { return _mm_sqrt_pd(v); }
#elif defined(__aarch64__)
FASTRNN_INLINE vec<float> sqrt(vec<float> v) { return vsqrtq_f32(v); }
FASTRNN_INLINE vec<double> sqrt(vec<double> v) { return vsqrtq_f64(v); }
#else
FASTRNN_INLINE vec<float> sqrt(vec<float> v) {
  for (int i = 0; i < kLanes<float>; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}
FASTRNN_INLINE vec<double> sqrt(vec<double> v) {
  for (int i = 0; i < kLanes<double>; ++i) v[i] = __builtin_sqrt(v[i]);
  return v;
}
#endif

// The product of the low and the high half of each lane. As x * (x >> 32) AVX-512 would multiply 64 bits, three times
// as long on the machines of one vendor, and narrower vectors have no such instruction.
FASTRNN_INLINE vec<uint64_t> product_of_halves(vec<uint64_t> x) {
#if FASTRNN_VECTOR_BYTES == 64
  const auto halves = __m512i(x);
  return vec<uint64_t>(_mm512_maskz_mul_epu32(0xff, halves, _mm512_maskz_shuffle_epi32(0xffff, halves, _MM_PERM_DDBB)));
#elif FASTRNN_VECTOR_BYTES == 32 && defined(__AVX2__)
  return vec<uint64_t>(_mm256_mul_epu32(__m256i(x), _mm256_shuffle_epi32(__m256i(x), _MM_SHUFFLE(3, 3, 1, 1))));
#elif FASTRNN_VECTOR_BYTES == 16 && defined(__SSE2__)
  return vec<uint64_t>(_mm_mul_epu32(__m128i(x), _mm_shuffle_epi32(__m128i(x), _MM_SHUFFLE(3, 3, 1, 1))));
#elif defined(__aarch64__)
  return vmull_u32(vmovn_u64(x), vshrn_n_u64(x, 32));
#else
  return (x & 0xffffffffu) * (x >> 32);
#endif
}

}  // namespace
}  // namespace fastrnn
