// The memory of a pass back, and of one layer's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

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

// Of all layers, asked for before anything is written.
template <class T>
class BackwardMemory {
 public:
  BackwardMemory(const Network<T>& net, const Tape<T>& tape, const Gradients<T>& call, const std::vector<Plan>& plans,
                 BlockPool& pool)
      : net_(net),
        tape_(tape),
        call_(call),
        plans_(plans),
        begins_(plans.size()),
        works_(pool, lay_out_works()),
        between_(size_t(buffers())),
        gradients_(carved(pool, [&](Arena& arena) {
          for (T*& dx : between_) dx = arena.take<T>(size_t(tape.order.steps()), size_t(step()));
        })) {}

  bool together() const { return plans_.front().split == Split::layers; }

  // What a BackwardWork writes there when it is made stays until the next one is made.
  BackwardWork<T> work_of(int layer) const {
    Arena own(works_.data() + begins_[size_t(layer)]);
    return make_work(own, layer);
  }
  // dx of a layer is dy of the one below.
  Rows<T> dx_of(int layer) const {
    return layer ? Rows<T>{between_[size_t((layer - 1) % buffers())], step(), row()} : call_.dx;
  }
  Rows<const T> dy_of(int layer) const {
    if (layer + 1 == layers()) return call_.dy;
    return {dx_of(layer + 1).data, step(), row()};
  }

 private:
  int layers() const { return net_.config().layers; }
  ptrdiff_t row() const { return net_.config().width(); }
  ptrdiff_t step() const { return row() * tape_.order.batch(); }
  int buffers() const { return std::min(together() ? layers() : 2, layers() - 1); }  // two in turn, or one each

  BackwardWork<T> make_work(Arena& arena, int layer) const {
    return BackwardWork<T>(arena, net_, tape_.order, layer, plans_[size_t(layer)], layer || call_.dx.data);
  }
  // Layers at work together have memory of their own each, others the same in turn.
  size_t lay_out_works() {
    Arena sizes;
    for (int layer = 0; layer < layers(); ++layer) {
      Arena own = together() ? sizes : Arena();
      begins_[size_t(layer)] = own.used();
      make_work(own, layer);
      sizes.reach(own);
    }
    return sizes.used();
  }

  const Network<T>& net_;
  const Tape<T>& tape_;
  const Gradients<T>& call_;
  const std::vector<Plan>& plans_;
  Few<size_t, 2> begins_;  // of each layer's work
  const Loan works_;
  Few<T*, 2> between_;    // dx of all layers but the first
  const Loan gradients_;  // where they lie
};

}  // namespace fastrnn
