// How a layer is spread over threads: the times of the splits by the model of a step, and the choice between them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/step_model.h"

namespace fastrnn {

// How threads split the work of a layer, or, the last, those of a stack.
enum class Split { none, rows, pipeline, units, layers };
constexpr int kSplits = 5;
constexpr const char* kSplitNames[kSplits] = {"none", "rows", "pipeline", "units", "layers"};

// Steps of a chunk that a pipeline hands over; one of no more is not planned.
constexpr int64_t kPipelineSteps = 8;

struct Plan {
  int threads = 1;            // of the parallel region, or of the crew
  int teams = 1;              // directions under way at the same time: 1 or 2; a pipeline has a team for each
  Split split = Split::none;  // within a team
  bool hoist = false;         // W x of many steps in one product, instead of with every step
  int64_t chunk = 0;          // steps of one such product, or of what a pipeline or one layer of many hands over
  bool by_crew = false;       // by whoever of the crew is awake, instead of a parallel region
  // For explain(), by the same model: a step of the whole layer by Split, as planned, and at the machine's limit.
  double step_ns[kSplits] = {};
  double planned_ns = 0, floor_ns = 0;
};

// What a plan is for: `training` is its pass forward, and inference for callers who train beside it. Both passes of it
// keep to regions, since the one back is long and two kinds of threads that spin are in each other's way. In a pipeline
// of the pass back a thread makes dx of the steps that another has swept.
enum class Use { inference, training, backward };
constexpr int kUses = 3;

// A measured distance as plans count it: in quarters, so that it is often that of the last pass, whose plans are kept.
inline double planned_distance(double measured) { return std::max(1.0, double(int64_t(4 * measured + 0.5)) / 4); }

// What is to be planned.
struct PlannedPass {
  int64_t steps;
  int batch;
  int64_t rows;  // live (step, row) pairs, steps * batch when nothing is ragged
  int threads;
  Use use;
  // How many times as long another core takes to see what this one wrote as one that shares a cache with it: a
  // planned_distance of Crew::distance or regions_distance.
  double distance = 1;
  bool stacks = true;  // layers may be at work at the same time
};
inline bool operator==(const PlannedPass& a, const PlannedPass& b) {
  return a.steps == b.steps && a.batch == b.batch && a.rows == b.rows && a.threads == b.threads && a.use == b.use &&
         a.distance == b.distance && a.stacks == b.stacks;
}

Plan plan_layer(const LayerShape& shape, const PlannedPass& pass);

// Layers that are at work at the same time: whether one may be; nanoseconds of a step of them all, or 0 where they are
// faster one after the other, as planned; and the plan of one of so many, beside that which it had.
bool stackable(const LayerShape& shape);
double stacked_ns(const std::vector<Plan>& plans, const PlannedPass& pass);
Plan plan_stacked(const LayerShape& shape, const PlannedPass& pass, int layers, double ns, const Plan& alternatives);

// Threads a piece of `flops` is worth, at most `threads`, and the nanoseconds it takes them at best.
int threads_for(double flops, int lanes, int threads);
double least_ns(double flops, int lanes, int threads);

// Bytes of weights from which threads share the reading of them: fewer one core reads in the time a region takes to
// start.
constexpr size_t kWorthReadingTogether = size_t(384) << 10;

// Whether work of `ns` is better left to helpers of the crew, if somebody is awake, than brought to a region.
bool suits_crew(double ns);

}  // namespace fastrnn
