// Every allocation that fails is an error that says so, and leaves things as they were.
#include <algorithm>
#include <cstring>
#include <optional>

#include "tests/api_check.h"
#include "tests/interpose.h"

namespace fastrnn::tests {
namespace {

// Everything the library does that takes memory; false when an allocation failed somewhere. An error must say so, and
// of a block how many bytes it was to have: `told` counts those.
bool whole_life(const std::vector<char>& file, long& told) {
  bool done = true;
  const auto checked = [&](const auto& result) {
    if (!result) {
      done = false;
      const char* const text = result.error().message();
      CHECK(result.error().status() == Status::out_of_memory && std::strncmp(text, "out of memory", 13) == 0, "%s",
            text);
      told += std::strstr(text, "bytes at once") != nullptr;
    }
    return bool(result);
  };
  const auto weights = Weights::parse(file.data(), file.size());
  if (!checked(weights)) return false;
  auto layer = Layer<float>::load(*weights, "lstm.");
  const auto head = Linear<float>::load(*weights, "head.");
  if (!checked(layer) || !checked(head)) return false;
  float x[24], y[60], out[12], dw[4 * 5 * 12];
  std::memset(x, 0, sizeof x);
  Sequence<float> s;
  s.steps = 6, s.batch = 2, s.x = x, s.y = y, s.x_step = 4, s.x_row = 2, s.y_step = 10, s.y_row = 5;
  checked(layer->run(s));
  checked(head->run(y, out, 12));
  if (const auto tape = layer->forward(s); checked(tape)) {
    Gradients<float> g;
    float* all[] = {dw, dw + 40, dw + 140, dw + 160};
    g.dy = y, g.dy_step = 10, g.dy_row = 5, g.weights = all;
    checked(layer->backward(*tape, g));
  }
  const auto stream = layer->stream(2);
  const auto pool = layer->pool(2);
  checked(stream), checked(pool);
  checked(layer->prepare());
  const Entry about[] = {{"a_key_that_takes_memory", "and a value that does"}};
  checked(serialize({{"lstm.", *layer, about}, {"head.", *head}}));
  return done;
}

void fails_anywhere() {
  const Layer<float> lstm = ready_layer<float>(config_of(Cell::lstm, 2, 5));
  Linear<float> head = required(Linear<float>::make(5, 1));
  const float ones[5] = {1, 1, 1, 1, 1};
  required(head.set(ones, ones));
  const std::string path = scratch_file("memory.safetensors");
  required(save(path.c_str(), {{"lstm.", lstm}, {"head.", head}}));
  std::vector<char> file(10000);
  std::FILE* const stream = std::fopen(path.c_str(), "rb");
  file.resize(std::fread(file.data(), 1, file.size(), stream));
  std::fclose(stream);
  std::remove(path.c_str());
  long n = 0, told = 0;
  CHECK(whole_life(file, told), "with memory enough");
  for (bool failed = true; failed && n < 10000; ++n) {
    const Calls before = calls();
    fail_allocations(n);
    const bool done = whole_life(file, told);
    failed = allocation_failed();
    fail_allocations(-1);
    const Calls after = calls();
    CHECK(done || failed, "an error although memory was there, at allocation %ld", n);
    if (!failed) CHECK(after.allocations - before.allocations == after.frees - before.frees, "a leak");
  }
  CHECK(told > 5, "%ld errors tell how many bytes were wanted", told);
  std::printf("out of memory at each of %ld allocations: an error each time\n", n - 1);
}

// attempt() with the first allocation failing, then the second and so on, until it has all it takes. After each failure
// intact() holds.
template <class Attempt, class Intact>
void fails_one_after_another(const char* what, Attempt attempt, Intact intact) {
  for (long n = 0; n < 1000; ++n) {
    fail_allocations(n);
    const Result<void> result = attempt();
    const bool failed = allocation_failed();
    fail_allocations(-1);
    if (!failed) {
      CHECK(result && n > 0, "%s: an error although memory was there, or nothing took any", what);
      return;
    }
    CHECK(!result && result.error().status() == Status::out_of_memory, "%s: allocation %ld", what, n);
    CHECK(intact(), "%s: something changed before allocation %ld failed", what, n);
  }
  CHECK(false, "%s: never had enough memory", what);
}

// Weights that are bfloat16 for the first time want more memory when they are packed. Where there is none they are read
// whole: attempt(n), with allocation n failing, gives the same in the end. How often that was so.
template <class Attempt>
int goes_without(Attempt attempt) {
  int without = 0;
  for (long n = 0; n < 1000; ++n) {
    bool failed = false;
    if (attempt(n, failed) && failed) ++without;
    if (!failed) return without;
  }
  return -1;
}

void reads_whole_without_memory() {
  const std::vector<float> x(120, 1.0f);
  std::vector<float> y(130), expected;
  const auto prepared = [&](long n, bool& failed) {
    Layer<float> layer = ready_layer<float>(config_of(Cell::lstm, 30, 70, 2, 20));
    set_coarse(layer);
    fail_allocations(n);
    const Result<void> result = layer.prepare();
    failed = allocation_failed();
    fail_allocations(-1);
    Sequence<float> s;
    s.steps = 1, s.x = x.data(), s.y = y.data();
    const Result<void> run = layer.run(s);
    CHECK(bool(run) == bool(result), "prepare, allocation %ld", n);
    CHECK(run || run.error().status() == Status::not_ready, "prepare, allocation %ld", n);
    if (expected.empty() && run) expected = y;
    CHECK(!run || equal_bits(y, expected), "prepare, allocation %ld: other results", n);
    return bool(result);
  };
  CHECK(goes_without(prepared) > 0, "no layer went without");
  expected.clear();
  const auto set = [&](long n, bool& failed) {
    Linear<float> head = required(Linear<float>::make(120, 130));
    const auto weights = draw_coarse<float>(120 * 130, 2);
    fail_allocations(n);
    required(head.set(weights.data(), weights.data()));
    failed = allocation_failed();
    fail_allocations(-1);
    required(head.run(x.data(), y.data(), 1));
    if (expected.empty()) expected = y;
    CHECK(equal_bits(y, expected), "set, allocation %ld: other results", n);
    return true;
  };
  CHECK(goes_without(set) > 0, "no linear layer went without");
}

// Layers differ in the memory they take, so that one which needs more may come after another has its results.
void changes_nothing() {
  constexpr int kSteps = 100, kBatch = 4, kHidden = 48, kLayers = 3, kStates = kLayers * kBatch * kHidden;
  const std::vector<float> x(kSteps * kBatch, 0.5f), first = draw<float>(kStates, 7), nines(kStates, 9.0f);
  const Config config = config_of(Cell::lstm, 1, kHidden, kLayers);
  std::vector<float> y(kSteps * kBatch * kHidden, 9.0f), h = first, c = first;
  Sequence<float> s;
  s.steps = kSteps, s.batch = kBatch, s.x = x.data(), s.x_step = kBatch, s.x_row = 1;
  s.y = y.data(), s.y_step = kBatch * kHidden, s.y_row = kHidden;
  s.h0 = s.hn = h.data(), s.c0 = s.cn = c.data();
  const auto all_nine = [](const std::vector<float>& v) { return v == std::vector<float>(v.size(), 9.0f); };
  const auto untouched = [&] { return h == first && c == first && all_nine(y); };
  const Layer<float> runs = ready_layer<float>(config), trains = ready_layer<float>(config);
  fails_one_after_another("run", [&] { return runs.run(s); }, untouched);

  h = c = first, y.assign(y.size(), 9.0f);
  std::optional<Tape> tape;
  const auto forward = [&]() -> Result<void> {
    auto made = trains.forward(s);
    if (!made) return made.error();
    tape = *std::move(made);
    return {};
  };
  fails_one_after_another("forward", forward, untouched);

  std::vector<float> dx(x.size(), 9.0f), dh = nines, dc = nines;
  std::vector<std::vector<float>> dw;
  std::vector<float*> pointers;
  for (size_t i = 0; i < trains.count(); ++i) dw.emplace_back(required(trains.at(i)).bytes / sizeof(float), 9.0f);
  for (std::vector<float>& one : dw) pointers.push_back(one.data());
  Gradients<float> g;
  g.dy = y.data(), g.dy_step = s.y_step, g.dy_row = s.y_row, g.dx = dx.data(), g.dx_step = kBatch, g.dx_row = 1;
  g.dh0 = dh.data(), g.dc0 = dc.data(), g.weights = pointers.data();
  fails_one_after_another(
      "backward", [&] { return trains.backward(*tape, g); },
      [&] { return dh == nines && dc == nines && all_nine(dx) && std::all_of(dw.begin(), dw.end(), all_nine); });
}

}  // namespace

void test_out_of_memory() {
  if (!interposes()) return void(std::printf("skipped: failing allocations need glibc and no sanitizer\n"));
  fails_anywhere();
  reads_whole_without_memory();
  changes_nothing();
}

}  // namespace fastrnn::tests
