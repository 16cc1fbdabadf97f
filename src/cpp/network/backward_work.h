// The memory of one layer's pass back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "network/network.h"

namespace fastrnn {

// Steps of one block. Sums over T * B run block by block, so the
// shape of the problem alone may decide, no thread and no ISA.
inline int64_t block_steps(const RowOrder& order) {
  const int64_t most = std::max<int64_t>(1, kSumBlock / std::max(1, order.batch()));
  return std::min(most, std::max<int64_t>(1, order.steps()));
}

// Of one direction.
template <class T>
struct DirectionWork {
  T* dgates;      // [block rows + B][A][pitch]
  T* dprojected;  // [block rows][output pitch]; null without a projection
  T* dstate;      // [B][output pitch]
  T* carry;       // [B][pitch]; null where a cell carries nothing
  T* bias_sums;   // [A][pitch]
};

// Of one thread.
template <class T>
struct ThreadWork {
  const T** left;    // [block rows] x, dgates, or what the projection got
  const T** before;  // [block rows] h[t-1]
  T** right;         // [block rows] dx
  T* scratch;
};

// All of it. Layers use the same in turn, but for those that are at work together.
template <class T>
struct BackwardWork {
  BackwardWork() = default;
  BackwardWork(Arena& arena, const Network<T>& net, const RowOrder& order, int layer, const Plan& plan, bool wants_dx) {
    const Config& c = net.config();
    const size_t batch = size_t(order.batch()), rows = size_t(block_steps(order)) * batch;
    const size_t pitch = size_t(padded(c.hidden)), output_pitch = size_t(padded(c.output()));
    const size_t gates = size_t(net.cell().accumulators) * pitch;
    for (int d = 0; d < c.directions(); ++d) {
      DirectionWork<T>& w = directions[d];
      w.dgates = arena.take<T>((rows + batch) * gates);
      w.dprojected = arena.take_if<T>(c.projection > 0, rows * output_pitch);
      w.dstate = arena.take<T>(batch * output_pitch);
      w.carry = arena.take_if<T>(net.cell().has_cell_state || net.cell().carries_dh, batch * pitch);
      w.bias_sums = arena.take<T>(gates);
    }
    threads = arena.take<ThreadWork<T>>(size_t(plan.threads));
    for (int i = 0; i < plan.threads; ++i) {
      const auto left = arena.take<const T*>(rows), before = arena.take<const T*>(rows);
      const ThreadWork<T> mine = {left, before, arena.take<T*>(rows), arena.take<T>(kOuterScratch<T>)};
      if (threads) threads[i] = mine;
    }
    if (plan.teams == 2 && wants_dx) {  // both directions at once: each its own dx
      const ptrdiff_t n = c.input_of(layer);
      second_dx = {arena.take<T>(size_t(order.steps()) * batch, size_t(n)), n * order.batch(), n};
    }
  }

  DirectionWork<T> directions[2] = {};
  ThreadWork<T>* threads = nullptr;  // [threads]
  Rows<T> second_dx = {};
};

}  // namespace fastrnn
