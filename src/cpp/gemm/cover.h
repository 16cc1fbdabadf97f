// How a matrix is covered with register tiles. What happens at a tile is a phase, a struct with
//   accumulators  sums of each unit that a tile ends with
//   vectors       vectors of weights that a tile multiplies for each block at each step of k: one a gate, but of a part
//                 of a block one for two or four gates (gemm/part.h). With `accumulators` it says which tiles fit the
//                 registers.
//   tile(row, height, block, width, coming) const
//                 all there is to do for rows [row, row + height) x blocks [block, block + width): calls the tile of
//                 that size (tiles.h), then does what follows its sums, the cell's equations or a store. `coming` is
//                 for Operand::weights.
#pragma once

#include "gemm/tiles.h"

namespace fastrnn {
namespace {

// visit(i, row, block) for the sums of a tile, in their order.
template <class Visit>
FASTRNN_INLINE void each_sum(int height, int width, Visit visit) {
  for (int row = 0, i = 0; row < height; ++row) {
    for (int block = 0; block < width; ++block, ++i) visit(i, row, block);
  }
}

// phase.tile() for rows [0, n) x blocks [begin, end). Blocks are the outer loop: a block's weights stay in the nearest
// cache while the rows pass. Each tile asks for another part of the weights of the blocks that come next; where those
// are all asked for, or nothing comes next, for the start of its own, which is in the cache already.
//
// Down: the widest tiles from the last to the first. A sweep walks so at every other step, and finds in its caches what
// the step before read last; one that always walks up finds nothing of weights that exceed them. T100 on one thread,
// time over that, Emerald Rapids: LSTM H512 (8 MB) B2 0.78, B4 0.79, B8 0.91, H64 (131 KB) B2 0.91, GRU H96 B2 0.91.
// (The end of a way up asks for the first block, as it does where the next way is up again; a sweep, which turns there,
// asks for those few lines in vain.)
template <class Phase>
FASTRNN_INLINE void cover(const Phase& phase, int n, int begin, int end, bool down = false) {
  if (n <= 0 || begin == end) return;
  const RowTiles rows(n, row_tiles<Phase::vectors>(n, end - begin));
  int width = narrowed(kWidest<Phase::accumulators, Phase::vectors>.at[rows.height], end - begin);
  const int turned = begin + widest_blocks(width, end - begin), mirror = begin + turned - width;
  const auto on_the_way = [&](int block) { return down && block < turned ? mirror - block : block; };
  for (int walked = begin; walked < end; walked += width) {
    width = narrowed(width, end - walked);
    const int block = on_the_way(walked);
    const int next = walked + width < end ? on_the_way(walked + width) : down ? block : begin;
    const int asked = next == block ? 0 : width * Phase::vectors;
    int row = 0;
    for (int i = 0; i < rows.count; ++i) {
      const int height = i < rows.tall ? rows.height : rows.height - 1;
      const int there = next + i / Phase::vectors;
      const Coming others = {there < end ? there : end - 1, i % Phase::vectors};
      const Coming coming = i < asked ? others : Coming{block, 0};
      phase.tile(row, height, block, width, coming);
      row += height;
    }
  }
}

}  // namespace
}  // namespace fastrnn
