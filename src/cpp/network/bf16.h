// Weights that are bfloat16 throughout, which one row reads in half the bytes (gemm/bf16.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "system/memory.h"

namespace fastrnn {

// Fewer bytes of weights, those of all layers, lie in a first-level cache, from where they are read for nothing.
constexpr size_t kLeastHalved = size_t(48) << 10;

// Of weights that are not, the first few tell.
inline bool all_bf16(const float* w, size_t n) {
  constexpr size_t run = 1024;
  for (size_t begin = 0; begin < n; begin += run) {
    uint32_t bits = 0;
    for (size_t i = begin; i < std::min(n, begin + run); ++i) {
      uint32_t of;
      std::memcpy(&of, w + i, sizeof of);
      bits |= of;
    }
    if (bits & 0xffff) return false;
  }
  return true;
}
inline bool all_bf16(const double*, size_t) { return false; }

// Memory for them, or none: nobody asked for pairs, so where there is no memory for them floats are read.
template <class Make>
Block block_if_any(Make make) {
  try {
    return make();
  } catch (const OutOfMemory&) {
    return {};
  }
}

}  // namespace fastrnn
