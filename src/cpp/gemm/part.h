// The last block of a cell's units where a half or a quarter of a vector is enough (UnitBlocks). In packed weights its
// gates lie side by side, so two or four of them are one whole vector: one FMA for all, and nothing to pack anew.
#pragma once

#include "gemm/tile.h"
#include "simd/lanes.h"

namespace fastrnn {
namespace {

// Whether gates of G share vectors in a block of V: in parts only. RNN's single gate has none to share with, and one
// tanh for two rows took longer than two of a half: B16 H20 1.06 (Emerald Rapids).
template <class G, class V>
constexpr bool kGatesJoin = kPartsOf<V> > 1 && G::count > 1;

// Vectors of gates that lie side by side: of halves gates 0 and 1, and 2 and 3; of quarters all four. The last of an
// odd number of gates stays a half.
template <class G, class V>
constexpr int kJoined = G::count / kPartsOf<V>;
constexpr int kMostJoined = kMaxGates / 2;

// Vectors of weights that a tile multiplies at a step of the depth for each block.
template <class G, class V>
constexpr int kVectorsOf = kGatesJoin<G, V> ? (G::count + kPartsOf<V> - 1) / kPartsOf<V> : G::count;

template <class G, class V>
constexpr bool joins_in_order() {
  constexpr int gates = kJoined<G, V> * kPartsOf<V>;
  return G::in_order(gates) && G::count - gates <= 1;
}

template <class G, class V>
FASTRNN_INLINE void join_gates(const V* gates, vec<element<V>> (&joined)[kMostJoined]) {
  static_assert(joins_in_order<G, V>(), "gates that lie side by side add to sums that do");
#pragma GCC unroll 2
  for (int j = 0; j < kJoined<G, V>; ++j) joined[j] = join(gates + j * kPartsOf<V>);
}
template <class G, class V>
FASTRNN_INLINE void split_gates(const vec<element<V>> (&joined)[kMostJoined], V* gates) {
#pragma GCC unroll 2
  for (int j = 0; j < kJoined<G, V>; ++j) split(joined[j], gates + j * kPartsOf<V>);
}

// One step of the depth.
template <class G, class V, class T>
FASTRNN_INLINE void add_part(vec<T> x, const T* w, vec<T> (&joined)[kMostJoined], V& odd) {
  static_assert(!kPartsPay || kSide >= kMaxGates, "all gates of a step of the depth lie side by side");
  constexpr int L = kLanes<T>;
#pragma GCC unroll 2
  for (int j = 0; j < kJoined<G, V>; ++j) joined[j] = fma(x, load(w + j * L), joined[j]);
  if constexpr (G::count % kPartsOf<V>) odd = fma(first_part<V>(x), load<V>(w + kJoined<G, V> * L), odd);
}

// One row, a whole block and the part behind it.
template <class G, class V, class T, int A>
FASTRNN_INLINE void multiply_both(vec<T> (&whole)[A], vec<T> (&joined)[kMostJoined], V& odd, const T* row, const T* w,
                                  const T* w_part, int depth) {
  for (int k = 0; k < depth; ++k, w += G::count * kLanes<T>, w_part += G::count * kLanesOf<V>) {
    const vec<T> x = broadcast<vec<T>>(row[k]);
#pragma GCC unroll 4
    for (int g = 0; g < G::count; ++g) whole[G::index[g]] = fma(x, load(w + g * kLanes<T>), whole[G::index[g]]);
    add_part<G>(x, w_part, joined, odd);
  }
}

template <class G, class V, class T, int R>
FASTRNN_INLINE void multiply_part(vec<T> (&joined)[R][kMostJoined], V (&odd)[R], const Operand<T>& op) {
  const T* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = op.rows[r];
  const T* w = op.w;
  const int depth = op.depth;
  for (int k = 0; k < depth; ++k, w += G::count * kLanesOf<V>) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) add_part<G>(broadcast<vec<T>>(rows[r][k]), w, joined[r], odd[r]);
  }
}

// What tile() is for whole blocks, for R rows of the part.
template <class First, class Rest, class V, int R, int A>
void part_tile(const Start<element<V>>& start, const Operand<element<V>>* ops, int count, V* sums) {  // [R][A]
  constexpr bool has_odd = First::count % kPartsOf<V>;
  constexpr int first_odd = First::index[First::count - 1], odd_of = Rest::index[Rest::count - 1];
  static_assert(First::count == Rest::count && joins_in_order<Rest, V>(), "joined gates go on from operand to operand");
  static_assert(has_odd || first_odd == odd_of, "a gate with two sums is the odd one");
  vec<element<V>> joined[R][kMostJoined];
  V odd[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    V gates[First::count];
#pragma GCC unroll 4
    for (int g = 0; g < First::count; ++g) gates[g] = load<V>(start.of(r, First::index[g], First::count));
    join_gates<First>(gates, joined[r]);
    odd[r] = gates[First::count - 1];
  }
  fetch<V, 1>(ops[0], 0);
  multiply_part<First>(joined, odd, ops[0]);
  if constexpr (first_odd != odd_of) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      sums[r * A + first_odd] = odd[r];
      odd[r] = load<V>(start.of(r, odd_of, First::count));
    }
  }
  for (int i = 1; i < count; ++i) {
    fetch<V, 1>(ops[i], 0);
    multiply_part<Rest>(joined, odd, ops[i]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    split_gates<First>(joined[r], sums + r * A);
    if constexpr (has_odd) sums[r * A + odd_of] = odd[r];
  }
}

}  // namespace
}  // namespace fastrnn
