// A 64-bit fingerprint of memory at the speed of the second-level cache: whether weights are still those that were
// packed. Only ever compared with fingerprints of the same ISA, so its value may depend on the vector's width.
#pragma once

#include "simd/vec.h"

namespace fastrnn {
namespace {

using Words = vec<uint64_t>;
constexpr uint64_t kOdd = 0x9e3779b97f4a7c15u;

// Two words a lane, of which a step changes one: a Feistel network (Feistel 1973). Its round function is the product of
// a word's halves, the one multiplication of integers that every machine does in one instruction. A step is a bijection
// of the chain for every d, and of d for every chain, so a difference in a chain stays, until the last lines fold 128
// bits of a chain into 64. Only differences in later words can undo it: they have to equal what products made of it,
// which depends on all that came before (or, two equal ones two steps apart, to meet a half that is zero), once in
// 2^32. 256 KiB on Emerald Rapids, GB/s, by full products of 64 bits, three instructions each / by these: 48 / 103,
// AVX2 22 / 57.
struct Chain {
  Words one, two;

  FASTRNN_INLINE void take(Words d, Words e) {
    two = (two ^ d) ^ product_of_halves(one);
    one = (one ^ e) ^ product_of_halves(two);
  }
};

FASTRNN_INLINE Words load_words(const char* from) {
  Words d;
  __builtin_memcpy(&d, from, sizeof d);
  return d;
}

uint64_t fingerprint(const char* data, size_t bytes) {
  constexpr int L = kLanes<uint64_t>, chains = 8;  // a step waits eight cycles for the one before
  constexpr size_t size = sizeof(Words), stripe = 2 * chains * size;
  Chain chain[chains];
  for (int i = 0; i < chains * L; ++i) {
    chain[i / L].one[i % L] = kOdd * uint64_t(2 * i + 1);
    chain[i / L].two[i % L] = kOdd * uint64_t(2 * i + 2);
  }
  const auto take = [&](const char* from) {
#pragma GCC unroll 8
    for (size_t j = 0; j < chains; ++j) {
      chain[j].take(load_words(from + j * size), load_words(from + (chains + j) * size));
    }
  };
  size_t done = 0;
  for (; done + stripe <= bytes; done += stripe) take(data + done);
  char rest[stripe] = {};
  __builtin_memcpy(rest, data + done, bytes - done);
  take(rest);
  for (int half = chains / 2; half > 0; half /= 2) {  // lane by lane all chains would take 800 cycles
    for (int j = 0; j < half; ++j) chain[j].take(chain[j + half].one, chain[j + half].two);
  }
  uint64_t one = bytes, two = kOdd;
  for (int i = 0; i < L; ++i) {
    one = (one ^ chain[0].one[i]) * kOdd, two = (two ^ chain[0].two[i]) * kOdd;
    one ^= one >> 29, two ^= two >> 29;
  }
  return one * kOdd ^ two;
}

}  // namespace
}  // namespace fastrnn
