// Inter-layer dropout (Srivastava et al. 2014, inverted): the mask of element i is a hash of (key, i), so backward
// makes it again instead of storing it, and threads need no order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "system/hash.h"
#include "threads/threads.h"

namespace fastrnn {

// Between a layer and the one above it.
struct Dropout {
  double p;  // in [0, 1]; 0: off
  uint64_t key;
  int layer;

  // to[i] = from[i] times 0 with probability p, else times 1 / (1 - p), for i in [begin, end). In place, too.
  template <class T>
  void part(const T* from, T* to, size_t begin, size_t end) const {
    const uint64_t base = hash(key ^ hash(uint64_t(layer)));
    const uint64_t bound = uint64_t(p * 0x1p32);
    const T scale = p < 1 ? T(1 / (1 - p)) : T(0);
    for (size_t i = begin; i < end; ++i) to[i] = (hash(base + i) >> 32) < bound ? T(0) : from[i] * scale;
  }

  // The same for i in [0, n).
  template <class T>
  void all(const T* from, T* to, size_t n, int threads) const {
    parallel(threads, [&](const Team& team) {
      const Range mine = part_of(int64_t(n), team.rank, team.size);
      part(from, to, size_t(mine.begin), size_t(mine.end));
    });
  }
};

}  // namespace fastrnn
