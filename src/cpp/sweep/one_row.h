// A step of one row alone, all of whose latencies show.
#pragma once

#include "gemm/bf16.h"
#include "sweep/row.h"

namespace fastrnn {
namespace {

// acc += row times the weights of the blocks from `block` on, read as pairs of bfloat16 where there are those.
template <class G, class V, class T, int Blocks, int A>
FASTRNN_INLINE void multiply_row(V (&acc)[1][Blocks][A], const T* row, const T* w, const uint32_t* bf16, int depth,
                                 int block) {
  if constexpr (sizeof(T) == sizeof(float)) {
    const ptrdiff_t step = ptrdiff_t(pairs_of(depth)) * G::count * kLanesOf<V>;
    if (bf16) return multiply_bf16<G>(acc, row, bf16 + block * step, depth);
  }
  Operand<T> op;
  op.rows[0] = row, op.depth = depth, op.block_step = ptrdiff_t(depth) * G::count * kLanesOf<V>;
  op.w = w + block * op.block_step;
  multiply<G>(acc, op);
}

// So many blocks of one row. No other row hides its latencies, so the sums never leave the registers, and the gates of
// all blocks come before the first h, which waits for its own. Zen 4, AVX2 (two blocks), a step's time over that with
// each block's h behind its gates: LSTM H20 0.84 to 0.92, H64 0.93, H32 0.97, GRU H32 0.94.
template <int Blocks, class Cell, class V, class T>
FASTRNN_INLINE void row_blocks(const ForwardTask<T>& a, const RowStep<T>& r, int block, bool bf16) {
  constexpr int A = Cell::accumulators;
  V sums[Blocks * A], acc[1][Blocks][A];
#pragma GCC unroll 8
  for (int b = 0; b < Blocks; ++b) start_row<Cell>(a, r, block + b, sums + b * A);
#pragma GCC unroll 8
  for (int i = 0; i < Blocks * A; ++i) acc[0][i / A][i % A] = sums[i];
  if (r.x) multiply_row<typename Cell::InputGates>(acc, r.x, a.w, bf16 ? a.bf16.w : nullptr, a.input, block);
  multiply_row<typename Cell::HiddenGates>(acc, r.h_prev, a.u, bf16 ? a.bf16.u : nullptr, a.output, block);
#pragma GCC unroll 8
  for (int i = 0; i < Blocks * A; ++i) sums[i] = acc[0][i / A][i % A];
  CellForward<V> s[Blocks];
#pragma GCC unroll 8
  for (int b = 0; b < Blocks; ++b) s[b] = run_gates<Cell>(a, r, block + b, sums + b * A);
#pragma GCC unroll 8
  for (int b = 0; b < Blocks; ++b) run_output<Cell>(a, r, block + b, s[b]);
}

// The last whole block and the part behind it together, as a part alone has the latencies of a whole block. T100 on one
// thread, time over that with the gates and h of the whole before those of a half: LSTM H20 0.91, H40 0.93, GRU H20
// 0.98, H40 0.91, H50 0.95. Where whole blocks are taken several at once (RNN), the one left over, if there is one: Zen
// 4, RNN H20 0.85, H50 0.88, H88 0.90, H120 0.93.
template <class Cell, class V, class T>
FASTRNN_INLINE void row_end(const ForwardTask<T>& a, const RowStep<T>& r, int block) {
  constexpr int L = kLanes<T>, A = Cell::accumulators;
  const int last = kPartsOf<V> * (block + 1);
  vec<T> whole[A], joined[kMostJoined];
  V part[A];
  start_row<Cell>(a, r, block, whole);
  start_row<Cell>(a, r, last, part);
  join_gates<typename Cell::InputGates>(part, joined);
  const auto add = [&](auto gates, const T* row, const T* w, int depth) {
    using G = decltype(gates);
    const T* const panel = w + block * ptrdiff_t(depth) * G::count * L;
    const T* const panel_part = panel + ptrdiff_t(depth) * G::count * L;
    multiply_both<G>(whole, joined, part[G::index[G::count - 1]], row, panel, panel_part, depth);
  };
  if (r.x) add(typename Cell::InputGates{}, r.x, a.w, a.input);
  add(typename Cell::HiddenGates{}, r.h_prev, a.u, a.output);
  split_gates<typename Cell::InputGates>(joined, part);
  CellForward<vec<T>> s = run_gates<Cell>(a, r, block, whole);
  CellForward<V> s_part = run_gates<Cell>(a, r, last, part);
  run_output<Cell>(a, r, block, s);
  run_output<Cell>(a, r, last, s_part);
}

// Blocks [begin, end) of a row, so many at once as long as there are as many, then half of that.
template <int Blocks, class Cell, class T>
FASTRNN_INLINE void row_groups(const ForwardTask<T>& a, const RowStep<T>& r, int begin, int end, bool down, bool bf16) {
  const int groups = (end - begin) / Blocks;
  for (int i = 0; i < groups; ++i) {
    row_blocks<Blocks, Cell, vec<T>>(a, r, begin + (down ? groups - 1 - i : i) * Blocks, bf16);
  }
  if constexpr (Blocks > 1) row_groups<Blocks / 2, Cell>(a, r, begin + groups * Blocks, end, down, bf16);
}

// Whether two blocks are taken at once where kPairsPay: none may be left over, and the weights have to come from the
// first-level cache. It must hold all of a single pair, but only five eighths of several, as a step reads first what
// the one before read last. A step's time over that with single blocks: Zen 4 (32 KB) LSTM H32, I1 to I24 0.95 to 0.99,
// but I32 1.05, I64 (49 KB) 1.21, two layers of LSTM H32 or H28 (I1) called from Python 1.05; Emerald Rapids (48 KB)
// LSTM H32 I32 0.89, H64 I1 0.93.
FASTRNN_INLINE bool in_pairs(int count, int64_t bytes, int near) {
  return count % 2 == 0 && bytes <= (count > 2 ? near / 5 * 8 : near / 16 * 15);
}

// Whether weights that are bfloat16 are read as such: not from the first-level cache, which costs nothing, while each
// pair takes a shift and a mask. T100 on one thread of Zen 4 (32 KB), time over that with floats: LSTM H40 (26 KB of U)
// and H48 (37 KB) 1.07, GRU H64 (49 KB) 0.86, LSTM H64 (66 KB) 0.86, H128 0.76, H256 0.70. Two blocks at once then: two
// FMAs for each pair wait for each other (H64 to H512 LSTM 0.94 to 0.98 of one block's time, GRU 0.85 to 0.99).
FASTRNN_INLINE bool worth_halving(int64_t bytes, int near) { return bytes > near / 4 * 5; }

// A step of one row. Every other one walks the blocks downwards, and finds in the caches what the step before read
// last; of weights too large for them a walk in one direction finds nothing (LSTM H256, two threads: 12.4 to 11.3 us).
template <class Cell, class T>
[[gnu::noinline]] void forward_row(const ForwardTask<T>& a, const RowStep<T>& r, const UnitBlocks<T>& blocks,
                                   bool down) {
  constexpr int at_once = kChains > Cell::accumulators ? kChains / Cell::accumulators : 1;
  constexpr int64_t step = Cell::HiddenGates::count * FASTRNN_VECTOR_BYTES;  // bytes of a block for a step of k
  const int64_t bytes = (blocks.end - blocks.begin + (blocks.last >= 0)) * step * (a.output + (r.x ? a.input : 0));
  const bool bf16 = a.bf16.u && worth_halving(bytes, a.near);
  const bool left_over = blocks.end > blocks.begin && (at_once == 1 || (blocks.end - blocks.begin) % 2);
  const bool paired = kPartsPay && left_over && blocks.last >= 0 && !bf16;
  const int end = blocks.end - paired;
  if (kPairsPay && at_once == 1 && (bf16 || in_pairs(end - blocks.begin, bytes, a.near))) {
    row_groups<2, Cell>(a, r, blocks.begin, end, down, bf16);
  } else {
    row_groups<at_once, Cell>(a, r, blocks.begin, end, down, bf16);
  }
  blocks.template part<Cell::InputGates::count>([&](auto vector) {
    using V = decltype(vector);
    paired ? row_end<Cell, V>(a, r, blocks.end - 1) : row_blocks<1, Cell, V>(a, r, blocks.last, bf16);
  });
}

// One step of one row whose pointers are known: all there is to a stream's step, 100 instructions less than a sweep.
template <class Cell, class T>
void forward_step(const ForwardTask<T>& task, const RowStep<T>& row) {
  forward_row<Cell>(task, row, UnitBlocks<T>(task.hidden, Cell::InputGates::count, 0, 1), task.odd);
}

// Prefetches W x of the next step of one row, and of a chunk's first, which another core has written. Pipelines of two
// on Emerald Rapids, where a line takes 100 ns from the other core's cache, T100, us without / with: LSTM H64 80 / 70,
// GRU H64 50 / 41, RNN H64 20 / 19; two or more steps ahead the same. Zen 4: nothing.
template <class Cell, class T>
FASTRNN_INLINE void fetch_hoisted(const ForwardTask<T>& a, int64_t step, int place) {
  constexpr ptrdiff_t line = 64 / sizeof(T);
  const ptrdiff_t size = Cell::InputGates::count * a.pitch;
  for (int64_t s = step == a.step_begin ? step : step + 1; s <= step + 1 && s < a.step_end; ++s) {
    const T* const start = a.hoisted + ((s - a.step_begin) * a.hoisted_rows + place) * size;
    for (ptrdiff_t i = 0; i < size; i += line) __builtin_prefetch(start + i);
  }
}

}  // namespace
}  // namespace fastrnn
