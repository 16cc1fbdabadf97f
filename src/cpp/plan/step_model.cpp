#include "plan/step_model.h"

#include <algorithm>
#include <cmath>

namespace fastrnn {
namespace {

// Rough figures of a core of 2023-2025, in GFLOP/s and GB/s (bytes per ns). Only their ratios matter here: they decide
// between splits that differ by factors, and the break-even points were checked by timing each split (docs).
constexpr double kCoreGhz = 3.5, kL1 = 250, kMemory = 15;  // and kL2
constexpr double kL1Bytes = 24e3, kL3Bytes = 16e6;
// The same for tiles of rows that are done before their weights are there (outrun_weights). Emerald Rapids: 83 for two
// rows, 61 for three.
constexpr double kL2Outrun = 80;
// Cycles of a row's vector of units besides the product, with so many for each gate: LSTM 142, GRU 114, RNN 58. One row
// alone hides most of them behind the product of its next units.
constexpr double kCell = 30, kGate = 28, kCellAlone = 40;
constexpr double kHoisted = 50e3;  // bytes of weights from which they are worth a product for few rows
// What W x takes, in bytes a ns, to be written and read once more: by vectors of a cache line, or of a part of one.
constexpr double kHoistedGbs = 8, kHoistedInPartsGbs = 4;
constexpr double kStepOverhead = 20;  // ns
// Weights a cycle, at most, where each is taken out of a pair of bfloat16. LSTM H128 to H512 on Zen 4, whose vectors of
// 512 bits take two cycles: AVX-512 12 to 13, AVX2 11.
constexpr double kTakenApart = 12;

bool whole_lines(const LayerShape& s) { return s.lanes * s.element_bytes >= 64; }

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Of the next blocks' weights, what tiles of rows have asked
// for: a part each, of three or of as many as there are gates.
double asked_for(const LayerShape& s, double rows) {
  if (rows < 2) return 0;
  return std::min(1.0, s.row_tiles(int(std::ceil(rows))) / std::max(3.0, double(s.gates)));
}

// What a step waits for weights from behind a core's own caches. The first tile of rows brings a block's for the
// others, and computes meanwhile; but with vectors of 64 bytes each tile of rows has asked for a part of the next
// block's before (`Coming` in gemm/tile.h). Tiles of six rows at most with AVX-512: with the eight of GRU, B8 H256 had
// its W x not hoisted and took a fifth longer.
double awaited(const LayerShape& s, double rows, double outputs, double depth) {
  const double tiles = std::ceil(rows / s.tile_rows), computing = rows * outputs * depth / s.lanes / s.core.fmas;
  const double bytes = outputs * depth * weight_bytes(s, rows);
  const ReadTime reading = read_time(s, bytes);
  const double asked = whole_lines(s) ? asked_for(s, rows) : 0;
  const double share = reading.behind_bytes / bytes;
  return std::max(0.0, asked * reading.behind - computing) +
         (1 - asked) * std::max(0.0, reading.behind - share * computing / tiles);
}

// ns that W x takes to be written and read once more.
double passing(const LayerShape& s, double rows, double outputs) {
  return rows * outputs * s.element_bytes / (whole_lines(s) ? kHoistedGbs : kHoistedInPartsGbs);
}

// Whether so few rows are done before a second-level cache has the next weights for them.
bool outrun_weights(const LayerShape& s, double rows) { return rows < (whole_lines(s) ? 4 : 3); }

}  // namespace

ReadTime read_time(const LayerShape& s, double bytes, double l2_gbs) {
  const double l2 = kL2Part * s.core.l2_bytes, l3 = std::max(l2, kL3Bytes), l3_gbs = s.core.l3_gbs;
  const auto between = [&](double begin, double end) { return std::max(0.0, std::min(bytes, end) - begin); };
  return {between(0, kL1Bytes) / kL1 + between(kL1Bytes, l2) / l2_gbs,
          between(l2, l3) / l3_gbs + between(l3, bytes) / std::min(l3_gbs, kMemory), std::max(0.0, bytes - l2)};
}

double core_gflops(int lanes) { return 4.0 * lanes * kCoreGhz; }  // two FMA units

double unit_part(const LayerShape& s, int threads) {
  const int most = ceil_div(ceil_div(s.hidden, s.lanes), threads);
  return std::min(1.0, double(most) * s.lanes / s.hidden);
}

int unit_threads(const LayerShape& s, int threads) {
  const int blocks = ceil_div(s.hidden, s.lanes);
  return ceil_div(blocks, ceil_div(blocks, threads));
}

// Such rows read each weight for little work: W x of many steps is one product then. But what it makes is written and
// read once more, and weights that lie in the first-level cache are read for nothing. More rows have to save more of
// what they wait for. T100, Emerald Rapids, time over that with W x in one product, a thread alone / units split: LSTM
// H128 B2 1.31 / 1.10, B3 1.21 / 1.08, B4 0.99 / 0.84, B6 0.97 / 0.83; with AVX2 B2 1.18 / 1.05, B3 0.97 / 0.87.
bool hoists(const LayerShape& s, double rows, double part) {
  const double outputs = s.gates * s.hidden * part;
  if (rows < 2) return true;
  if (outrun_weights(s, rows)) return s.gates * s.hidden * double(s.input + s.output) * s.element_bytes > kHoisted;
  const double saved = awaited(s, rows, outputs, s.input + s.output) - awaited(s, rows, outputs, s.output);
  return saved > passing(s, rows, outputs);
}

StepTime step_time(const LayerShape& s, double rows, double part) {
  const double units = s.hidden * part, outputs = s.gates * units;
  const double hoisted = hoists(s, rows, part) ? s.input : 0, depth = s.output + s.input - hoisted;
  const double l2_gbs = rows > 1 && outrun_weights(s, rows) ? kL2Outrun : kL2, peak = core_gflops(s.lanes);
  double reading = read_time(s, outputs * depth * weight_bytes(s, rows), l2_gbs).own;
  if (weight_bytes(s, rows) < s.element_bytes) {
    reading = std::max(reading, outputs * depth / (kTakenApart * kCoreGhz));
  }
  const double cycles = rows < 2 ? kCellAlone : kCell + kGate * s.gates;
  const double cell = rows * units / s.lanes * cycles / kCoreGhz;
  return {
      2 * rows * outputs * hoisted / peak, hoisted > 0 ? passing(s, rows, outputs) : 0,
      kStepOverhead + cell + std::max(2 * rows * outputs * depth / peak, reading) + awaited(s, rows, outputs, depth)};
}

}  // namespace fastrnn
