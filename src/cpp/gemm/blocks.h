// Units in blocks of a vector, and whose blocks are whose.
#pragma once

#include "simd/lanes.h"

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

// What part of a vector the last block of a cell's units takes: 1, 2 for a half, or 4 for a quarter, which pays where
// it makes one vector of four gates.
template <class T>
constexpr int parts_of_last(int units, int gates) {
  const int rest = units % kLanes<T>;
  if (!kPartsPay || rest == 0 || rest > kLanes<T> / 2) return 1;
  return gates == 4 && rest <= kLanes<T> / 4 ? 4 : 2;
}

// The units of a cell that belong to one of several threads: whole vectors, and maybe a part of one behind them.
template <class T>
struct UnitBlocks : BlockRange {
  int parts_of_vector = 1;  // of the last block
  int last = -1;            // that block among those of its width, where it is a part

  UnitBlocks(int units, int gates, int part, int parts) : BlockRange(blocks_of<T>(units), part, parts) {
    if (part < parts - 1) return;
    parts_of_vector = parts_of_last<T>(units, gates);
    if (parts_of_vector > 1) last = parts_of_vector * --end;
  }

  // visit(a vector of the width) for the last block, where it is a part, of a cell of so many gates at most.
  template <int Gates, class Visit>
  FASTRNN_INLINE void part(Visit visit) const {
    if constexpr (kPartsPay) {
      if (parts_of_vector == 2) visit(part_vec<T, 2>{});
      if constexpr (Gates == 4) {
        if (parts_of_vector == 4) visit(part_vec<T, 4>{});
      }
    }
  }

  // visit(a vector of the width, first block, last block) for every width.
  template <int Gates, class Visit>
  FASTRNN_INLINE void each_width(Visit visit) const {
    visit(vec<T>{}, begin, end);
    part<Gates>([&](auto vector) { visit(vector, last, last + 1); });
  }
};

}  // namespace
}  // namespace fastrnn
