#include "plan/plan.h"

#include <algorithm>

#include "system/limits.h"

namespace fastrnn {
namespace {

constexpr double kBarrier = 125;  // ns for each core that meets, near each other, and finds what the others wrote
constexpr double kHandOver = 5;   // ns a step whose input part another core wrote: LSTM H12 gained all the same
// And what it waits for that, for each time that the core is farther away than one which
// shares a cache; a barrier costs in proportion. LSTM, us on one thread / two near / two
// far, where a cache line takes 330 ns instead of 55: T64 H32 16.3 / 12.4 / 22.2, T100 H20
// 16.7 / 13.3 / 25.4, H48 49 / 33 / 54, H64 87 / 58 / 77; by units I13 H64 65 / 50 / 135.
constexpr double kAwaited = 45;
// Of W x in one product: steps at least, and rows where W comes from behind a core's caches for each product anew. LSTM
// B8 H512, one thread, a step's time over that without: 6 steps 0.84, 12 0.80, 24 0.77; B16 0.94, 0.87, 0.88.
constexpr int kLeastSteps = 6, kLeastRows = 192;
static_assert(kLeastSteps * kMaxBatch <= INT32_MAX, "rows of one product are counted with int");
// Steps of a chunk handed over, as kPipelineSteps. With fewer the products' tiles are low, with more the first chunk is
// late; in a pass back, where only the last one is waited for, two tiles of six rows (24 the same; 6 and 8 the same by
// least times, by medians up to 5 % slower).
constexpr int64_t kSweptSteps = 12, kStackedSteps = 8;
// What a meeting in a pass back takes besides for each cache line of dgates from another core. One row, two threads,
// Emerald Rapids: LSTM H64 gains nothing by units, GRU H96 an eighth or nothing, by the hour, LSTM H128 a third. The
// same for each of up to eight rows: rows over units LSTM H128 B2 0.88, B4 0.89, B8 0.81, H256 B4 1.17, B8 0.94.
constexpr double kLineBetween = 20;
constexpr int kCrewRows = 8;            // fewer the crew may take at any length, where threads meet or hand over
constexpr double kWorthAThread = 15e3;  // ns: entering a parallel region costs 1 to 5 us
constexpr double kWorthHelp = 3e3;      // ns: to ask the crew costs 0.2 us
// Each direction on its own threads has no barrier between them, and more rows for each thread. The model sees too
// little of that: LSTM H256 B8, two layers, trains in 142 ms so, and in 171 where it prefers four rows a thread.
constexpr double kTeamsMayTake = 1.3;  // times as long, by the model
// Of what layers take one after the other, by the model, which sees too little in layers at work together. Two layers,
// T100, Emerald Rapids, by the model / timed: LSTM B1 H128 0.95 / 0.79, B2 H64 0.99 / 0.99, B4 H128 0.99 / 0.88, B8 H64
// 1.07 / 0.99; GRU B1 H128 0.92 / 0.79, B2 H64 0.99 / 0.87; RNN B1 H256 0.96 / 0.84, B2 H64 1.15 / 1.20.
constexpr double kStackedMayTake = 0.98;
// Units instead of rows, where some threads have a row more than others. Two threads of Zen 4, T30, time over that by
// rows, B5 / B7 / B9 / B11 / B17: inference LSTM H256 0.71 / 0.84 / 0.87 / 0.89 / 0.95, GRU H512 0.74 / 0.90 / 0.91 /
// 0.90 / 0.95. (B8: 0.94 to 1.02, and rows are kept.)
constexpr double kUnitsOverRows = 0.95;
constexpr double kLong = 5e6;  // ns: now and then a region waits as long for its threads to wake

// What is to be done, and where.
struct Work {
  const LayerShape& shape;
  int64_t steps;
  int batch;
  double live;      // rows of a step
  double distance;  // at least 1
  bool backward;
};

// ns that a step waits for dgates of others, which it needs of all gates. (Of more rows: not measured.)
double between(const Work& w, int threads) {
  if (!w.backward || w.batch > kCrewRows) return 0;
  const double bytes = w.live * w.shape.gates * w.shape.hidden * w.shape.element_bytes;
  return kLineBetween * bytes / 64 * (threads - 1) / threads;
}

// Rows of the thread that has most of them: of five two threads have three and two.
double most_rows(const Work& w, int threads) {
  return std::max(1.0, w.live * ((w.batch + threads - 1) / threads) / w.batch);
}

// A step on `threads` threads, by Split; a split that cannot be is as slow as none. (To pass W x on is not counted for
// one row, whose splits were timed without: GRU H96 16 % slower then.)
void split_times(const Work& w, int threads, double (&ns)[kSplits]) {
  const LayerShape& s = w.shape;
  const auto sum = [&](double rows, double part) {
    const StepTime t = step_time(s, rows, part);
    return t.input + t.rest + (w.batch > 1 ? t.passing : 0);
  };
  std::fill_n(ns, kSplits, sum(w.live, 1));
  if (threads < 2) return;
  if (w.batch >= threads) ns[int(Split::rows)] = sum(most_rows(w, threads), 1);
  if (s.hidden >= threads * s.lanes) {
    const int meeting = unit_threads(s, threads);
    const double barrier = meeting * kBarrier * w.distance + between(w, meeting);
    ns[int(Split::units)] = sum(w.live, unit_part(s, meeting)) + (s.projects ? 2 : 1) * barrier;
  }
  if (w.batch == 1 && w.steps > kPipelineSteps) {  // four rows of H256 took a sixth more so than with their units split
    const StepTime t = step_time(s, w.live, 1);
    const double awaited = w.backward ? 0 : kAwaited * (w.distance - 1);  // a sweep downwards waits for nobody
    ns[int(Split::pipeline)] = std::max(t.input, t.rest) + kHandOver + awaited;
  }
}

// How much of the input goes into one product, and the machine's limit.
Plan finish(Plan plan, const Work& w) {
  const LayerShape& s = w.shape;
  const int team = plan.threads / plan.teams;
  plan.hoist = w.steps > 1 && hoists(s, plan.split == Split::rows ? most_rows(w, team) : w.live,
                                     plan.split == Split::units ? unit_part(s, team) : 1);
  const double row_bytes = double(s.gates) * s.hidden * s.element_bytes;
  const int64_t least =
      row_bytes * s.input > s.core.l2_bytes ? std::max(kLeastSteps, kLeastRows / w.batch) : kLeastSteps;
  plan.chunk = std::clamp<int64_t>(int64_t(256e3 / (row_bytes * w.batch)), std::min<int64_t>(w.steps, least), w.steps);
  if (plan.split == Split::pipeline) plan.chunk = w.backward ? kSweptSteps : kPipelineSteps;
  const double matrix = double(s.gates) * s.hidden * s.directions, flops = 2 * w.live * matrix * (s.output + s.input);
  const double read = matrix * s.output * weight_bytes(s, w.live) / (plan.split == Split::pipeline ? 1 : plan.threads);
  const ReadTime reading = read_time(s, read);
  plan.floor_ns = std::max(least_ns(flops, s.lanes, plan.threads), reading.own + reading.behind);
  return plan;
}

// How one team works, and what a step takes it.
struct Choice {
  int threads;
  Split split;
  double ns;
};

// Tries fewer threads too: the barrier of all may cost more than they save. A split has to gain a tenth on an earlier
// one: it waits more often and suffers more when a neighbour takes a core. A pipeline, and units on uneven rows, half
// of that.
Choice fastest(const Work& w, int threads, unsigned allowed) {
  constexpr double margin[kSplits] = {1, 0.9, 0.95, 0.9, 0};
  double ns[kSplits];
  split_times(w, 1, ns);
  Choice best = {1, Split::none, ns[0]};
  for (int n = threads; n > 1; n /= 2) {
    split_times(w, n, ns);
    for (int i = 1; i < kSplits; ++i) {
      const Split split = Split(i);
      const bool on_uneven = split == Split::units && best.split == Split::rows && w.batch % n != 0;
      const double least = on_uneven ? kUnitsOverRows : margin[i];
      if (!(allowed >> i & 1) || ns[i] >= least * best.ns) continue;
      best = {split == Split::pipeline ? 2 : split == Split::units ? unit_threads(w.shape, n) : n, split, ns[i]};
    }
  }
  return best;
}

// Steps that a layer hands over at once.
int64_t stacked_steps(Use use) { return use == Use::backward ? kSweptSteps : kStackedSteps; }

// Splits that the use and the amount of work allow, a bit each.
unsigned allowed_splits(Use use, bool region, int directions) {
  constexpr unsigned all = (1u << int(Split::layers)) - 1, rows = 1u << int(Split::rows);
  if (region) return all;
  if (use != Use::inference) return 0;
  return directions == 1 ? all : rows;
}

}  // namespace

int threads_for(double flops, int lanes, int threads) {
  return least_ns(flops, lanes, 1) < kWorthAThread ? 1 : threads;
}

double least_ns(double flops, int lanes, int threads) { return flops / (core_gflops(lanes) * threads); }

bool suits_crew(double ns) { return ns < kLong; }

Plan plan_layer(const LayerShape& s, const PlannedPass& pass) {
  Plan plan;
  if (pass.steps == 0 || pass.batch == 0) return plan;
  const Use use = pass.use;
  const int threads = pass.threads;
  const bool backward = use == Use::backward;
  const double steps = double(pass.steps);
  const Work work = {s, pass.steps, pass.batch, double(pass.rows) / steps, pass.distance, backward};
  split_times(work, threads, plan.step_ns);
  for (double& ns : plan.step_ns) ns *= s.directions;
  plan.planned_ns = plan.step_ns[0];
  const double serial = plan.planned_ns * steps;
  const bool region = (backward ? 2 : 1) * serial >= kWorthAThread;  // the gradients of the weights are as much again
  const unsigned allowed = serial >= kWorthHelp ? allowed_splits(use, region, s.directions) : 0;
  // A pipeline of one team has buffers for one direction.
  const unsigned alone = s.directions == 2 ? allowed & ~(1u << int(Split::pipeline)) : allowed;
  const Choice one = fastest(work, threads, alone);
  plan.threads = one.threads, plan.split = one.split, plan.planned_ns = one.ns * s.directions;
  if (region && s.directions == 2 && threads > 1) {
    const Choice each = fastest(work, threads / 2, allowed);
    if (each.ns <= kTeamsMayTake * plan.planned_ns) {
      plan.threads = 2 * each.threads, plan.teams = 2, plan.split = each.split, plan.planned_ns = each.ns;
    }
  }
  const bool meets = plan.split == Split::pipeline || plan.split == Split::units;
  plan.by_crew = plan.threads > 1 && use == Use::inference &&
                 ((meets && pass.batch < kCrewRows) || suits_crew(plan.planned_ns * steps));
  return finish(plan, work);
}

// One whose weights stay in a core's own caches from chunk to chunk: LSTM H256, two layers, took 1.14 times as long.
bool stackable(const LayerShape& s) {
  const double bytes = double(s.gates) * s.hidden * (s.input + s.output) * s.element_bytes;
  return s.directions == 1 && bytes < kL2Part * s.core.l2_bytes;
}

double stacked_ns(const std::vector<Plan>& plans, const PlannedPass& pass) {
  const int layers = int(plans.size()), workers = std::min(pass.threads, layers);
  const int64_t chunk = stacked_steps(pass.use);
  if (workers < 2 || pass.batch == 0 || pass.batch > kCrewRows || pass.steps <= chunk) return 0;
  double longest = 0, all = 0, planned = 0;
  for (const Plan& p : plans) {
    longest = std::max(longest, p.step_ns[0]), all += p.step_ns[0], planned += p.planned_ns;
  }
  if (all * double(pass.steps) < (pass.use == Use::inference ? kWorthHelp : kWorthAThread)) return 0;
  const double awaited = kHandOver + kAwaited * (pass.distance - 1);
  const double late = double(layers - 1) * double(chunk) / double(pass.steps);  // the topmost one begins
  const double ns = (std::max(longest, all / workers) + awaited) * (1 + late);
  return ns < kStackedMayTake * planned ? ns : 0;
}

Plan plan_stacked(const LayerShape& s, const PlannedPass& pass, int layers, double ns, const Plan& alternatives) {
  Plan plan = plan_layer(s, {pass.steps, pass.batch, pass.rows, 1, pass.use});
  plan.threads = std::min(pass.threads, layers), plan.split = Split::layers;
  plan.by_crew = pass.use == Use::inference && (pass.batch < kCrewRows || suits_crew(ns * double(pass.steps)));
  plan.chunk = stacked_steps(pass.use);
  std::copy_n(alternatives.step_ns, int(Split::layers), plan.step_ns);
  plan.planned_ns = plan.step_ns[int(Split::layers)] = ns / layers;
  plan.floor_ns /= plan.threads;
  return plan;
}

}  // namespace fastrnn
