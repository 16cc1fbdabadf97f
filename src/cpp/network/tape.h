// The memory of a pass: what it writes, and what the one back reads.
#pragma once

#include <algorithm>
#include <memory>

#include "network/call.h"
#include "network/config.h"
#include "network/schedule.h"
#include "system/few.h"
#include "system/memory.h"

namespace fastrnn {

// What one direction of one layer keeps of a pass, and where its states lie.
template <class T>
struct Trace {
  BatchRows<const T> h0, c0;  // before the first step: the caller's, one row of zeros, or the copies
  T *h0_copy, *c0_copy;       // [B, P], [B][pitch], null where none is needed
  BatchRows<T> cell;          // c between two steps: [B, H] the caller's cn, or c0's copy; none with a tape
  T* gates;                   // [rows][saved][pitch], null without a tape
  T* tape_cell;               // [rows][pitch], null without a tape or a cell state
  T* unprojected;             // [rows][pitch] with a tape, else [B][pitch]; null without a projection
};

// What one layer reads, after dropout, and what it writes.
template <class T>
struct LayerRows {
  Rows<const T> input;
  Rows<T> output;
};

// The memory of a pass. With a tape it holds what BPTT needs; x and y stay the caller's and must not change.
template <class T>
struct Tape {
  Tape(const Config& c, const Sequence<T>& sequence, bool keep)
      : order(sequence.steps, sequence.batch, sequence.lengths),
        call(sequence),
        keeps(keep),
        sweeps(size_t(c.sweeps())),
        layers(size_t(c.layers)) {
    layers.front().input = call.x;
    layers.back().output = call.y;
  }

  void lay_out(Arena& arena, const Config& c, const CellKernels<T>& cell) {
    const size_t pitch = size_t(padded(c.hidden)), batch = size_t(call.batch), rows = size_t(order.rows());
    zeros = arena.take_if<T>(!keeps, zero_count(c));
    for (int sweep = 0; sweep < c.sweeps(); ++sweep) {
      Trace<T>& t = sweeps[size_t(sweep)];
      lay_out_states(arena, c, cell, sweep);
      t.gates = arena.take_if<T>(keeps, rows, size_t(cell.saved) * pitch);
      t.tape_cell = arena.take_if<T>(keeps && cell.has_cell_state, rows, pitch);
      t.unprojected = arena.take_if<T>(c.projection > 0, keeps ? rows : batch, pitch);
    }
    // Outputs of the inner layers, and, where backward needs both, what dropout made of them.
    const size_t all = size_t(call.steps) * batch, width = size_t(c.width());
    const ptrdiff_t row = c.width(), step = row * call.batch;
    for (size_t layer = 0; layer + 1 < layers.size(); ++layer) {
      T* const y = arena.take<T>(all, width);
      T* const dropped = keeps && call.dropout > 0 ? arena.take<T>(all, width) : y;
      layers[layer].output = {y, step, row};
      layers[layer + 1].input = {dropped, step, row};
    }
  }

  // A tape needs the initial states once more, when the caller's may have changed. Otherwise c0 alone is copied, where
  // the caller's rows are no whole vectors; where they are, c is carried in cn.
  void lay_out_states(Arena& arena, const Config& c, const CellKernels<T>& cell, int sweep) {
    Trace<T>& t = sweeps[size_t(sweep)];
    const SweepRows caller = {sweep, call.batch};
    const auto initial = [&](const T* given, int n, const T* copy, int pitch) -> BatchRows<const T> {
      if (copy) return {copy, pitch};
      if (!given) return {zeros, 0};
      return {caller.of(given, 0, n), n};
    };
    const int pitch = padded(c.hidden);
    const bool whole = pitch == c.hidden;
    t.h0_copy = arena.take_if<T>(keeps, size_t(call.batch) * size_t(c.output()));
    t.h0 = initial(call.h0, c.output(), t.h0_copy, c.output());
    if (!cell.has_cell_state) return;
    t.c0_copy = arena.take_if<T>(keeps || !whole, size_t(call.batch) * size_t(pitch));
    t.c0 = initial(call.c0, c.hidden, t.c0_copy, pitch);
    if (keeps) return;
    t.cell = {t.c0_copy, pitch};
    if (whole) t.cell = {caller.of(call.cn, 0, c.hidden), c.hidden};
  }

  static size_t zero_count(const Config& c) { return size_t(padded(std::max(c.hidden, c.output()))); }
  size_t bytes() const { return memory.bytes() + order.bytes(); }  // all that grows with the sequence

  RowOrder order;
  Sequence<T> call;
  bool keeps;
  T* zeros = nullptr;               // [zero_count], null with a tape
  Few<Trace<T>, 2> sweeps;          // [L*D]
  Few<LayerRows<T>, 2> layers;      // [L]; the first reads call.x, the last writes call.y
  std::shared_ptr<BlockPool> pool;  // lives as long as what it lends
  Loan memory;
};

// Where a pass forward finds and leaves the values of one direction of a layer.
template <class T>
void lay_task(const Config& c, const Tape<T>& tape, int layer, int direction, ForwardTask<T>& task) {
  const Trace<T>& t = tape.sweeps[size_t(c.sweep(layer, direction))];
  task.schedule = tape.order.schedule(direction == 1);
  task.x = tape.layers[size_t(layer)].input;
  task.y = tape.layers[size_t(layer)].output;
  task.y.data += direction * c.output();
  task.h0 = t.h0, task.c0 = t.c0, task.cell = t.cell;
  task.tape_gates = t.gates, task.tape_cell = t.tape_cell, task.unprojected = t.unprojected;
}

// Of a tape that lies in memory of the caller's.
template <class T>
size_t reserve_bytes(const Config& c, const CellKernels<T>& cell, const Sequence<T>& call) {
  Tape<T> tape(c, call, true);
  Arena sizes;
  tape.lay_out(sizes, c, cell);
  return sizes.used();
}

}  // namespace fastrnn
