// A 64-bit fingerprint of memory at the speed of the second-level cache: whether weights are still those that were
// packed. Only ever compared with fingerprints of the same ISA, so its value may depend on the vector's width.
#pragma once

#include "simd/vec.h"

namespace fastrnn {
namespace {

constexpr uint64_t kOdd = 0x9e3779b97f4a7c15u;

// One step of a lane, a bijection of both h and d: a change of one word is always seen. Both are spread before the
// product, because the top bit (the sign of a weight) alone would leave it as that one bit, which the next d could undo.
// (Spreading d before and h behind costs a shift more: 512 KiB on Zen 4 6.4 us instead of 5.4. d added once more behind the
// product is no bijection: tried, and 16 of 4,088 single bits collided.)
FASTRNN_INLINE vec<uint64_t> absorb(vec<uint64_t> h, vec<uint64_t> d) {
  h ^= d;
  return (h ^ h >> 31) * kOdd;
}

uint64_t fingerprint(const char* data, size_t bytes) {
  constexpr int W = kLanes<uint64_t>, chains = 8;  // a chain waits up to 20 cycles for its multiplication
  constexpr size_t size = FASTRNN_VECTOR_BYTES, stripe = chains * size;
  vec<uint64_t> h[chains];
  for (int i = 0; i < chains * W; ++i) h[i / W][i % W] = kOdd * uint64_t(i + 1);
  const auto take = [&](const char* from) {
#pragma GCC unroll 8
    for (size_t j = 0; j < chains; ++j) {
      vec<uint64_t> d;
      __builtin_memcpy(&d, from + j * size, size);
      h[j] = absorb(h[j], d);
    }
  };
  size_t done = 0;
  for (; done + stripe <= bytes; done += stripe) take(data + done);
  char rest[stripe] = {};
  __builtin_memcpy(rest, data + done, bytes - done);
  take(rest);
  uint64_t sum = bytes;
  for (int i = 0; i < chains * W; ++i) {
    sum = (sum ^ h[i / W][i % W]) * kOdd;
    sum ^= sum >> 29;
  }
  return sum;
}

}  // namespace
}  // namespace fastrnn
