// Weights that are packed a piece at a time, in a thread's second-level cache, and multiplied there, for a pass that
// multiplies with them once. GRU H1024, a step of eight rows forward on one thread of Zen 4: 3.7 ms with all packed
// before, 2.8 so, 1.4 with weights that are packed already.
#pragma once

#include <algorithm>

#include "backend.h"
#include "threads/threads.h"

namespace fastrnn {

constexpr size_t kPieceBytes = size_t(256) << 10;  // 512 KB: 1.00 to 1.04 of the time (Zen 4, 1 MB)

// Blocks of units in equal parts, as kernels cut them (BlockRange in gemm/blocks.h).
struct Pieces {
  template <class T>
  Pieces(const Kernels<T>& kernels, int units, int gates, int depth, int threads)
      : blocks((units + kernels.lanes - 1) / kernels.lanes), block_row(kernels.lanes * gates) {
    // Of a single gate a tile takes several blocks at once.
    const size_t block = size_t(block_row) * size_t(depth), least = size_t((kMaxGates + gates - 1) / gates);
    const int most = int(std::min(size_t(blocks), std::max(kPieceBytes / sizeof(T) / block, least)));
    count = (blocks + most - 1) / most;
    count = std::min(blocks, (count + threads - 1) / threads * threads);
    values = size_t((blocks + count - 1) / count) * block;
  }

  int blocks, block_row;  // values of a block at one step of its depth
  int count;
  size_t values;  // of the largest piece

  // Kernels look for a block where it would be if all were packed, which begins so many values before `piece` does.
  ptrdiff_t before(int piece, int depth) const { return part_of(blocks, piece, count).begin * block_row * depth; }
  // Of a piece, at such a depth.
  ptrdiff_t size(int piece, int depth) const {
    const Range mine = part_of(blocks, piece, count);
    return (mine.end - mine.begin) * block_row * depth;
  }
};

}  // namespace fastrnn
