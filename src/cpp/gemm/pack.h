// Weights in the order in which a register tile reads them, [outputs/L][group][depth][gates of the group][L], where
// kSide gates are a group; outputs past the last are zero. The last block of a cell's units may be narrower
// (UnitBlocks).
#pragma once

#include "gemm/blocks.h"
#include "gemm/tile.h"
#include "simd/square.h"

namespace fastrnn {
namespace {

// From rows that are outputs (torch's weights, forward): packed[j][k][g] = w[g * outputs + j][k].
template <class V, class T>
void pack_row_blocks(const T* w,  // [gates * outputs, depth]
                     int gates, int outputs, int depth, int begin, int end, T* packed) {
  constexpr int L = kLanesOf<V>;
  for (int block = begin; block < end; ++block) {
    const int lanes = lanes_in<V>(outputs, block);
    T* const panel = packed + ptrdiff_t(block) * depth * gates * L;
    for (int g = 0; g < gates; ++g) {
      const T* const rows = w + (ptrdiff_t(g) * outputs + block * L) * depth;
      T* const to = panel + gate_start(g, depth) * L;
      const ptrdiff_t step = group_size(gates, group_of(g)) * L;
      int k = 0;
      for (; lanes == L && k + L <= depth; k += L) {
        V columns[L];
        load_square(rows + k, depth, columns);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) store(to + (k + i) * step, columns[i]);
      }
      for (; k < depth; ++k) {
        V column = {};
        for (int j = 0; j < lanes; ++j) column[j] = rows[ptrdiff_t(j) * depth + k];
        store(to + k * step, column);
      }
    }
  }
}

template <class T>
void pack_rows(const T* w, int outputs, int depth, int part, int parts, T* packed) {
  const BlockRange blocks(blocks_of<T>(outputs), part, parts);
  pack_row_blocks<vec<T>>(w, 1, outputs, depth, blocks.begin, blocks.end, packed);
}

template <class T>
void pack_gates(const T* w, int gates, int outputs, int depth, int part, int parts, T* packed) {
  UnitBlocks<T>(outputs, gates, part, parts).template each_width<kMaxGates>([&](auto vector, int begin, int end) {
    pack_row_blocks<decltype(vector)>(w, gates, outputs, depth, begin, end, packed);
  });
}

// From rows that are the depth (the transpose, backward): packed[j][k] = w[k][j].
template <class T>
void pack_columns(const T* w,  // [depth, outputs]
                  int outputs, int depth, int part, int parts, T* packed) {
  constexpr int L = kLanes<T>, most = 16;  // rows at once: reads and writes in runs take a quarter less time
  const BlockRange blocks(blocks_of<T>(outputs), part, parts);
  for (int first = 0; first < depth; first += most) {
    const int end = first + most < depth ? first + most : depth;
    for (int block = blocks.begin; block < blocks.end; ++block) {
      const int lanes = lanes_of<T>(outputs, block);
      T* const panel = packed + ptrdiff_t(block) * depth * L;
      for (int k = first; k < end; ++k) {
        store(panel + ptrdiff_t(k) * L, load_first(w + ptrdiff_t(k) * outputs + block * L, lanes));
      }
    }
  }
}

}  // namespace
}  // namespace fastrnn
