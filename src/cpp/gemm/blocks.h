// Units in blocks of a vector, and whose blocks are whose.
#pragma once

#include "simd/vec.h"

namespace fastrnn {
namespace {

template <class T>
constexpr int blocks_of(int units) {
  return (units + kLanes<T> - 1) / kLanes<T>;
}

// Lanes of a block that hold real units.
template <class V>
FASTRNN_INLINE int lanes_in(int units, int block) {
  const int left = units - block * kLanesOf<V>;
  return left < kLanesOf<V> ? left : kLanesOf<V>;
}
template <class T>
FASTRNN_INLINE int lanes_of(int units, int block) {
  return lanes_in<vec<T>>(units, block);
}

// The part of `blocks` blocks that belongs to one of several threads.
struct BlockRange {
  int begin = 0, end;
  BlockRange(int blocks, int part, int parts) : end(blocks) {
    if (parts == 1) return;  // a step of a small stream notices the divisions: 10 ns each
    begin = int(int64_t(blocks) * part / parts);
    end = int(int64_t(blocks) * (part + 1) / parts);
  }
};

// Whether the last block of a cell's units is one of half a vector.
template <class T>
constexpr bool ends_in_half(int units) {
  const int rest = units % kLanes<T>;
  return kHalvesPay && rest > 0 && rest <= kLanes<T> / 2;
}

// The units of a cell that belong to one of several threads: whole vectors, and maybe half a vector behind them.
template <class T>
struct UnitBlocks : BlockRange {
  int half = -1;  // the half among blocks of its own width

  UnitBlocks(int units, int part, int parts) : BlockRange(blocks_of<T>(units), part, parts) {
    if (part == parts - 1 && ends_in_half<T>(units)) half = 2 * --end;
  }

  // visit(a vector of the width, first block, last block) for either width.
  template <class Visit>
  FASTRNN_INLINE void each_width(Visit visit) const {
    visit(vec<T>{}, begin, end);
    if constexpr (kHalvesPay) {
      if (half >= 0) visit(half_vec<T>{}, half, half + 1);
    }
  }
};

}  // namespace
}  // namespace fastrnn
