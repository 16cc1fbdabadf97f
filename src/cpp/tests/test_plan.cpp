// What no result shows: how a layer is spread over threads.
#include <initializer_list>
#include <string>
#include <vector>

#include "plan/kept_plans.h"
#include "tests/check.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

constexpr int kSteps = 100;

// Cores of 1 MB of second-level cache: one that reads fast from behind it, and one that does not.
constexpr Core kFast = {1 << 20, 100, 3.5}, kSlow = {1 << 20, 24, 3.5};

// As the kernels for AVX-512 cut the rows of LSTM.
int row_tiles(int rows) { return rows <= 8 ? 1 : (rows + 5) / 6; }

LayerShape lstm(int hidden, int directions = 1, const Core& core = kFast) {
  return {4, hidden, hidden, hidden, directions, 4, 16, 6, row_tiles, false, false, core};  // float32 in vectors of 16
}

constexpr double kNear = 1, kFar = 3;  // how far the other core is

Plan plan(const LayerShape& shape, int batch, int threads, Use use, double distance = kNear) {
  return plan_layer(shape, {kSteps, batch, int64_t(kSteps) * batch, threads, use, distance});
}

// W x goes into a product of its own where it saves reading, and
// not where the weights lie in the first-level cache anyway.
void check_hoist(int hidden, int batch, bool hoist) {
  CHECK(plan(lstm(hidden), batch, 1, Use::inference).hoist == hoist, "B%d H%d hoists", batch, hidden);
}

void check_rules(const LayerShape& shape, int batch, int threads, Use use) {
  const Plan p = plan(shape, batch, threads, use);
  const char* const what = use == Use::inference ? "inference" : use == Use::training ? "forward" : "backward";
  const auto check = [&](bool right, const char* rule) {
    CHECK(right, "%s, %s of B%d H%d D%d on %d threads", rule, what, batch, shape.hidden, shape.directions, threads);
  };
  check(p.threads >= 1 && p.threads <= threads, "as many threads as were asked for at most");
  check(p.threads > 1 || (p.split == Split::none && !p.by_crew), "one thread has nothing to split");
  check(p.teams == 1 || (shape.directions == 2 && p.threads > 1), "a team for each direction");
  check(p.chunk >= 1 && p.chunk <= kSteps, "a chunk lies in the sequence");
  check(p.split != Split::pipeline || (batch == 1 && (p.hoist || use == Use::backward)), "a pipeline is for one row");
  check(p.split != Split::rows || batch >= p.threads / p.teams, "a row for each thread");
  check(use == Use::inference || !p.by_crew, "training keeps to regions");
  // The directions of a bidirectional layer go to two teams where the model sees a little less in it.
  const double alone = plan(shape, batch, 1, use).planned_ns;
  check(p.planned_ns <= (shape.directions == 2 ? 1.3 : 1) * alone, "more threads are not slower");
}

void check_split(int hidden, int batch, Use use, Split split, bool by_crew) {
  const Plan p = plan(lstm(hidden), batch, 2, use);
  CHECK(p.threads == 2 && p.split == split && p.by_crew == by_crew, "B%d H%d, use %d: %d threads, split %d, %s", batch,
        hidden, int(use), p.threads, int(p.split), p.by_crew ? "crew" : "region");
}

// What becomes of it on a core that reads fast from behind its own caches, and on a slow one.
struct Way {
  Split split;
  bool hoist;
};
void check_core(int batch, int hidden, int threads, Way fast, Way slow) {
  const auto check = [&](const Core& core, Way way) {
    const Plan p = plan(lstm(hidden, 1, core), batch, threads, Use::inference);
    CHECK(p.split == way.split && p.hoist == way.hoist, "B%d H%d, %.0f GB/s: split %d, hoist %d", batch, hidden,
          core.l3_gbs, int(p.split), int(p.hoist));
  };
  check(kFast, fast), check(kSlow, slow);
}

// Threads that meet at every step, or hand over, stay together
// only as long as that is cheap; those who never meet always.
void check_distance(int hidden, int batch, Use use, Split near, Split far) {
  const Split found[] = {plan(lstm(hidden), batch, 2, use, kNear).split, plan(lstm(hidden), batch, 2, use, kFar).split};
  CHECK(found[0] == near && found[1] == far, "B%d H%d, use %d: near split %d, far %d", batch, hidden, int(use),
        int(found[0]), int(found[1]));
}

// Plans last as long as nothing of what is planned changes, nor the weights.
void check_kept() {
  KeptPlans kept;
  int made = 0;
  const auto ask = [&](const PlannedPass& pass) {
    const KeptPlans::Plans plans = kept.of(pass, [&] { return std::vector<Plan>{plan_layer(lstm(64), pass)}; });
    ++made;
    return plans;
  };
  const PlannedPass usual = {kSteps, 4, 4 * kSteps, 2, Use::inference, kNear, true};
  const KeptPlans::Plans first = ask(usual);
  CHECK(ask(usual) == first, "the same pass was planned twice");
  PlannedPass others[7] = {usual, usual, usual, usual, usual, usual, usual};
  ++others[0].steps, ++others[1].batch, --others[2].rows, ++others[3].threads, others[4].use = Use::training;
  others[5].distance = kFar, others[6].stacks = false;
  for (const PlannedPass& other : others) {
    const KeptPlans::Plans before = ask(usual);
    CHECK(ask(other) != before, "%d passes: another one took the plans of the usual one", made);
  }
  CHECK(first->front().threads == plan_layer(lstm(64), usual).threads, "plans that are still held have changed");
  const KeptPlans::Plans last = ask(usual);
  kept.forget();
  CHECK(ask(usual) != last, "plans of other weights were kept");
  for (const double near : {0.0, 0.7, 1.0, 1.1}) CHECK(planned_distance(near) == 1, "%g is far", near);
  CHECK(planned_distance(2.1) == 2 && planned_distance(2.2) == 2.25, "%g, %g", planned_distance(2.1),
        planned_distance(2.2));
}

// What plans ask of the kernels: each cell has its own tiles. With AVX-512 rows are cut into sixes, GRU's into eights.
void check_row_tiles(const Backend& backend) {
  const auto check = [&](Cell cell, int rows, int tiles) {
    const int got = backend.f32.cells[int(cell)].row_tiles(rows);
    CHECK(got == tiles, "%s, %s: %d rows in %d tiles, not %d", backend.name, kCellNames[int(cell)], rows, got, tiles);
  };
  for (int cell = 0; cell < kCells; ++cell) check(Cell(cell), 1, 1);
  if (std::string(backend.name) != "avx512") return;
  for (const Cell cell : {Cell::rnn_tanh, Cell::rnn_relu, Cell::lstm}) check(cell, 8, 1), check(cell, 24, 4);
  check(Cell::gru, 8, 1), check(Cell::gru, 24, 3);
}

// A core's figures are measured with the backend that is asked for, whoever was asked before.
void check_measured() {
  static bool asked = false;
  static Backend other = *usable_backends().front();
  Core::measured(*usable_backends().front());
  other.fma_loop = [](int64_t) {
    asked = true;
    return 1e9;
  };
  const double fmas = Core::measured(other).fmas;
  CHECK(asked, "the figures of another backend were taken");
  asked = false;
  CHECK(Core::measured(other).fmas == fmas && !asked, "they are measured once");
}

}  // namespace

void test_plan() {
  for (const int hidden : {1, 16, 20, 64, 256, 1024}) {
    for (const int directions : {1, 2}) {
      for (const int batch : {1, 2, 3, 7, 8, 64}) {
        for (const int threads : {1, 2, 3, 8, 64}) {
          for (const Use use : {Use::inference, Use::training, Use::backward}) {
            check_rules(lstm(hidden, directions), batch, threads, use);
          }
        }
      }
    }
  }
  check_distance(20, 1, Use::inference, Split::pipeline, Split::none);
  check_distance(32, 1, Use::inference, Split::pipeline, Split::none);
  check_distance(256, 1, Use::inference, Split::units, Split::units);
  check_distance(64, 16, Use::inference, Split::rows, Split::rows);
  check_distance(64, 1, Use::backward, Split::pipeline, Split::pipeline);  // which waits for nobody
  check_distance(256, 1, Use::backward, Split::units, Split::pipeline);
  check_hoist(16, 1, true);
  check_hoist(16, 4, false);
  check_hoist(128, 3, true);   // done before the next weights are there
  check_hoist(128, 4, false);  // and these as long as it takes to read them
  check_hoist(128, 16, false);
  LayerShape avx2 = lstm(128);
  avx2.lanes = 8, avx2.tile_rows = 4;
  CHECK(plan(avx2, 2, 1, Use::inference).hoist && !plan(avx2, 3, 1, Use::inference).hoist, "half lines: B2 hoists");
  check_split(16, 2, Use::inference, Split::rows, true);  // too short for a region, long enough for the crew
  // Weights that a core's caches do not hold, from a slow level behind them:
  // each thread reads those of its units alone, and W once for many steps.
  check_core(16, 512, 2, {Split::rows, false}, {Split::units, true});
  check_core(64, 512, 2, {Split::rows, false}, {Split::rows, false});  // tiles have asked for it all
  check_core(64, 256, 2, {Split::rows, false}, {Split::rows, false});
  check_core(8, 256, 1, {Split::none, false}, {Split::none, true});
  // 2 MB of second-level cache and two FMAs a cycle: measured.
  const Core large = {2 << 20, 30, 5.6};
  const Plan few = plan(lstm(256, 1, large), 16, 2, Use::inference),
             many = plan(lstm(256, 1, large), 64, 2, Use::inference);
  CHECK(few.hoist || few.split == Split::units, "B16 H256 reads all weights at every step from behind the caches");
  CHECK(!many.hoist && many.split == Split::rows, "B64 H256: split %d, hoist %d", int(many.split), int(many.hoist));
  // With vectors of half a cache line W x has to save more.
  LayerShape narrow = lstm(256, 1, {512e3, 24, 3.5});
  narrow.lanes = 8, narrow.tile_rows = 4;
  CHECK(!plan(narrow, 64, 2, Use::inference).hoist, "B64 H256 hoists with vectors of half a line");
  // Half of 64 threads would have no block of units, or one would have two of 24's 32.
  for (const int threads : {24, 64}) {
    CHECK(plan(lstm(512, 1, kSlow), 1024, threads, Use::training).split == Split::rows, "B1024 H512, %d threads",
          threads);
  }
  // Weights that half a core's cache holds and the whole does
  // not: each thread its units, until caches are large enough.
  CHECK(plan(lstm(256, 1, {512e3, 24, 3.5}), 8, 2, Use::inference).split == Split::units &&
            plan(lstm(256, 1, {2e6, 24, 3.5}), 8, 2, Use::inference).split == Split::rows,
        "B8 H256 goes by units where the second-level cache is small, else by rows");
  check_split(64, 1, Use::inference, Split::pipeline, true);
  check_split(256, 1, Use::inference, Split::units, true);
  // A block of steps of a pool, which can have no pipeline, is planned as so few.
  CHECK(plan_layer(lstm(64), {kPipelineSteps, 1, kPipelineSteps, 2, Use::inference}).split == Split::units &&
            plan_layer(lstm(32), {kPipelineSteps, 1, kPipelineSteps, 2, Use::inference}).split == Split::none,
        "eight steps of one row are no pipeline");
  check_split(64, 16, Use::inference, Split::rows, true);
  check_split(128, 6, Use::inference, Split::units, true);  // three rows each would wait for all weights
  check_split(64, 8, Use::inference, Split::rows, true);
  check_split(256, 8, Use::inference, Split::rows, true);
  check_split(256, 9, Use::inference, Split::units, true);   // five rows and four
  check_split(512, 64, Use::inference, Split::rows, false);  // too long for the crew
  // Eight blocks of units: two each for four, and for six no fewer.
  const Plan six = plan(lstm(128), 1, 6, Use::inference);
  CHECK(six.split == Split::units && six.threads == 4, "H128 on six threads: split %d on %d", int(six.split),
        six.threads);
  check_split(256, 1, Use::training, Split::units, false);
  check_split(256, 1, Use::backward, Split::units, false);
  check_split(64, 1, Use::backward, Split::pipeline, false);
  check_split(256, 64, Use::backward, Split::rows, false);
  for (const Backend* backend : usable_backends()) check_row_tiles(*backend);
  check_measured();
  check_kept();
}

}  // namespace fastrnn::tests
