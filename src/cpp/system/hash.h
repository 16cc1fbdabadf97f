// A good hash of a number.
#pragma once

#include <cstdint>

namespace fastrnn {

// The finaliser of SplitMix64 (Steele, Lea & Flood 2014).
inline uint64_t hash(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace fastrnn
