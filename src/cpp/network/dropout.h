// Inter-layer dropout (Srivastava et al. 2014, inverted): the mask of element i is a hash of (key, i), so backward
// makes it again instead of storing it, and threads need no order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "network/hash.h"
#include "network/threads.h"

namespace fastrnn {

// data[i] *= 0 with probability p, else 1 / (1 - p); p in [0, 1].
template <class T>
void dropout(T* data, size_t n, double p, uint64_t key, int layer, int threads) {
  const uint64_t base = hash(key ^ hash(uint64_t(layer)));
  const uint64_t bound = uint64_t(p * 0x1p32);
  const T scale = p < 1 ? T(1 / (1 - p)) : T(0);
  parallel(threads, [&](const Team& team) {
    const size_t end = n * size_t(team.rank + 1) / size_t(team.size);
    for (size_t i = n * size_t(team.rank) / size_t(team.size); i < end; ++i) {
      data[i] = (hash(base + i) >> 32) < bound ? T(0) : data[i] * scale;
    }
  });
}

}  // namespace fastrnn
