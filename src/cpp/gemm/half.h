// The half block behind the whole ones of a cell's units. In packed weights its gates lie side by side, so two of them
// are one whole vector: one FMA for both, and nothing to pack anew.
#pragma once

#include "gemm/tile.h"

namespace fastrnn {
namespace {

// Gates 0 and 1, and 2 and 3, are pairs. The last of an odd number of gates stays a half.
constexpr int kHalfPairs = kMaxGates / 2;

template <class G>
constexpr bool pairs_in_order() {
  for (int g = 0; g < G::count / 2 * 2; ++g) {
    if (G::index[g] != g) return false;
  }
  return true;
}

template <class G, class T, int A>
FASTRNN_INLINE void join_pairs(const half_vec<T> (&half)[A], vec<T> (&pairs)[kHalfPairs]) {
  static_assert(pairs_in_order<G>(), "two gates that lie side by side add to two sums that do");
#pragma GCC unroll 2
  for (int p = 0; p < G::count / 2; ++p) pairs[p] = join(half[2 * p], half[2 * p + 1]);
}
template <class G, class T>
FASTRNN_INLINE void split_pairs(const vec<T> (&pairs)[kHalfPairs], half_vec<T>* half) {
#pragma GCC unroll 2
  for (int p = 0; p < G::count / 2; ++p) {
    half[2 * p] = low_half<T>(pairs[p]), half[2 * p + 1] = high_half<T>(pairs[p]);
  }
}

// Whether the gates of G are paired in a block of V: in halves only. RNN's single gate has nothing to pair with, and
// one tanh for two rows took longer than two of a half: B16 H20 1.06 (Emerald Rapids).
template <class G, class V>
constexpr bool kPairsUp = sizeof(V) < FASTRNN_VECTOR_BYTES && G::count > 1;

// Vectors of weights that a tile multiplies at a step of the depth for each block.
template <class G, class V>
constexpr int kVectorsOf = kPairsUp<G, V> ? (G::count + 1) / 2 : G::count;

// One step of the depth.
template <class G, class T>
FASTRNN_INLINE void add_half(vec<T> x, const T* w, vec<T> (&pairs)[kHalfPairs], half_vec<T>& odd) {
  static_assert(!kHalvesPay || kSide >= kMaxGates, "all gates of a step of the depth lie side by side");
  constexpr int L = kLanes<T>, joined = G::count / 2;
#pragma GCC unroll 2
  for (int p = 0; p < joined; ++p) pairs[p] = fma(x, load(w + p * L), pairs[p]);
  if constexpr (G::count % 2) odd = fma(low_half<T>(x), load<half_vec<T>>(w + joined * L), odd);
}

// One row, a whole block and the half behind it.
template <class G, class T, int A>
FASTRNN_INLINE void multiply_both(vec<T> (&whole)[A], vec<T> (&pairs)[kHalfPairs], half_vec<T>& odd, const T* row,
                                  const T* w, const T* w_half, int depth) {
  for (int k = 0; k < depth; ++k, w += G::count * kLanes<T>, w_half += G::count * kLanes<T> / 2) {
    const vec<T> x = broadcast<vec<T>>(row[k]);
#pragma GCC unroll 4
    for (int g = 0; g < G::count; ++g) whole[G::index[g]] = fma(x, load(w + g * kLanes<T>), whole[G::index[g]]);
    add_half<G>(x, w_half, pairs, odd);
  }
}

template <class G, class T, int R>
FASTRNN_INLINE void multiply_half(vec<T> (&pairs)[R][kHalfPairs], half_vec<T> (&odd)[R], const Operand<T>& op) {
  const T* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = op.rows[r];
  const T* w = op.w;
  const int depth = op.depth;
  for (int k = 0; k < depth; ++k, w += G::count * kLanes<T> / 2) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) add_half<G>(broadcast<vec<T>>(rows[r][k]), w, pairs[r], odd[r]);
  }
}

// What tile() is for whole blocks, for R rows of the half.
template <class First, class Rest, class T, int R, int A>
void half_tile(const Start<T>& start, const Operand<T>* ops, int count, half_vec<T>* sums) {  // [R][A]
  using V = half_vec<T>;
  constexpr int first_odd = First::index[First::count - 1], odd_of = Rest::index[Rest::count - 1];
  static_assert(First::count == Rest::count && pairs_in_order<Rest>(), "pairs go on from operand to operand");
  static_assert(First::count % 2 || first_odd == odd_of, "a gate with two sums is the odd one");
  vec<T> pairs[R][kHalfPairs];
  V odd[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    V half[First::count];
#pragma GCC unroll 4
    for (int g = 0; g < First::count; ++g) half[g] = load<V>(start.of(r, First::index[g], First::count));
    join_pairs<First, T>(half, pairs[r]);
    odd[r] = half[First::count - 1];
  }
  fetch<V, 1>(ops[0], 0);
  multiply_half<First>(pairs, odd, ops[0]);
  if constexpr (first_odd != odd_of) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      sums[r * A + first_odd] = odd[r];
      odd[r] = load<V>(start.of(r, odd_of, First::count));
    }
  }
  for (int i = 1; i < count; ++i) {
    fetch<V, 1>(ops[i], 0);
    multiply_half<Rest>(pairs, odd, ops[i]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    split_pairs<First, T>(pairs[r], sums + r * A);
    if constexpr (First::count % 2) sums[r * A + odd_of] = odd[r];
  }
}

}  // namespace
}  // namespace fastrnn
