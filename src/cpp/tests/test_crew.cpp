// Every part of a job is run once, whoever asks and whatever helpers do; every chunk of a pipeline is prepared once, and
// stays where it is until it has been used.
#include <chrono>
#include <thread>
#include <vector>

#include "network/crew.h"
#include "network/pipeline.h"
#include "network/threads.h"
#include "tests/check.h"

namespace fastrnn::tests {
namespace {

// Shares `jobs` jobs, one after another; returns how many parts were not run exactly once.
int wrong_parts(Crew& crew, int parts, int jobs) {
  int wrong = 0;
  for (int job = 0; job < jobs; ++job) {
    std::vector<std::atomic<int>> runs(static_cast<size_t>(parts));
    crew.share(parts, 0, [&](int part) { runs[size_t(part)].fetch_add(1, std::memory_order_relaxed); });
    for (const std::atomic<int>& n : runs) wrong += n.load(std::memory_order_relaxed) != 1;
  }
  return wrong;
}

void several_callers() {
  const std::shared_ptr<Crew> crew = Crew::shared();
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int parts = 1; parts < 5; ++parts) {
    callers.emplace_back([&wrong, parts, crew] { wrong += wrong_parts(*crew, parts, 5000); });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0, "%d parts were left out or run twice", wrong.load());
}

// Helpers do come: with more than one core, a second thread runs some of the parts of work that is called for long enough.
void helpers_come() {
  const std::shared_ptr<Crew> crew = Crew::shared();
  if (available_threads() < 2) return;
  const std::thread::id caller = std::this_thread::get_id();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  std::atomic<bool> helped{false};
  while (!helped && std::chrono::steady_clock::now() < end) {
    crew->share(2, 1e9, [&](int part) {
      if (std::this_thread::get_id() != caller) helped = true;
      const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(part ? 0 : 100);
      while (std::chrono::steady_clock::now() < until) relax();
    });
  }
  CHECK(helped && crew->size() > 0, "nobody came in 20 s");
}

// One who sleeps is left out, or woken: nothing hangs.
void after_a_pause() {
  const std::shared_ptr<Crew> crew = Crew::shared();
  int wrong = 0;
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 4));
    wrong += wrong_parts(*crew, 3, 100);
  }
  CHECK(wrong == 0, "%d parts were left out or run twice", wrong);
}

void ends_with_its_last_holder() {
  const std::weak_ptr<Crew> watched = Crew::shared();
  CHECK(watched.expired(), "somebody still holds the crew");
}

void linger() {
  for (int i = 0; i < 200; ++i) relax();
}

// Now one side is the slower, now the other, so that each has to wait.
// helper_first: the helper is there before the user, or comes in the middle, or never.
void pipeline(int64_t chunks, bool helper, bool helper_first) {
  Pipeline line;
  std::vector<int64_t> slots(Pipeline::kSlots, -1);
  std::vector<int> prepared(static_cast<size_t>(chunks));
  const auto prepare = [&](int64_t k) {
    if (k / 50 % 2 == 0) linger();
    ++prepared[size_t(k)], slots[size_t(k % Pipeline::kSlots)] = k;
  };
  int64_t expected = 0, wrong = 0;
  std::thread other;
  const auto start = [&] { other = std::thread([&] { line.prepare_all(chunks, prepare); }); };
  if (helper && helper_first) start();
  line.use_all(chunks, prepare, [&](int64_t k) {
    if (k / 50 % 2 == 1) linger();
    wrong += k != expected++ || slots[size_t(k % Pipeline::kSlots)] != k;
    if (helper && !helper_first && k == chunks / 2) start();
  });
  if (other.joinable()) other.join();
  for (int n : prepared) wrong += n != 1;
  CHECK(wrong == 0 && expected == chunks, "%d of %d chunks are wrong", int(wrong), int(chunks));
}

}  // namespace

void test_crew() {
  for (const int64_t chunks : {0, 1, 2, 3, 4, 5, 97, 2000}) {
    for (int who = 0; who < 4; ++who) pipeline(chunks, who & 1, who & 2);
  }
  several_callers();
  helpers_come();
  after_a_pause();
  ends_with_its_last_holder();
}

}  // namespace fastrnn::tests
