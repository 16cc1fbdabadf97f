// Every part of a job is run once, whoever asks and whatever helpers do; every step of a walk by all of a team; every
// chunk of a pipeline is prepared once, and stays where it is until it has been used.
#if !defined(_WIN32)
#include <signal.h>
#endif

#include <chrono>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/check.h"
#include "threads/crew.h"
#include "threads/pipeline.h"
#include "threads/threads.h"

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

// A sum for each of a team, handed at every step to the next rank, who adds the number of the step: one who is left
// out, or whom the barrier lets through too early, shows in the sums, and to ThreadSanitizer.
struct Relay {
  explicit Relay(int threads) : sums(static_cast<size_t>(threads)) {}

  void run(const Team& team, int64_t begin, int64_t end) {
    if (team.rank == 0) {
      in_order = in_order && begin == done && team.size <= int(sums.size()), done = end;
      for (int64_t step = begin; step < end; ++step) expected += team.size * step;
    }
    for (int64_t step = begin; step < end; ++step) {
      const int64_t mine = sums[size_t(team.rank)];
      team.wait();
      sums[size_t((team.rank + 1) % team.size)] = mine + step;
      team.wait();
    }
  }

  bool right(int64_t steps) const {
    return in_order && done == steps && std::accumulate(sums.begin(), sums.end(), int64_t(0)) == expected;
  }

  std::vector<int64_t> sums;
  int64_t done = 0, expected = 0;
  bool in_order = true;
};

// Walks of one step and of many; returns how many went wrong.
int wrong_walks(Crew& crew, int threads, int walks) {
  int wrong = 0;
  for (int walk = 0; walk < walks; ++walk) {
    const int64_t steps = walk % 3 ? 100 : 1;
    Relay relay(threads);
    crew.walk(threads, steps, walk % 2 ? 10 : 1e5,
              [&](const Team& team, int64_t begin, int64_t end) { relay.run(team, begin, end); });
    wrong += !relay.right(steps);
  }
  return wrong;
}

template <class Wrong>
void several_callers(const char* what, Wrong count_wrong) {
  const std::shared_ptr<Crew> crew = Crew::shared();
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int parts = 1; parts < 5; ++parts) {
    callers.emplace_back([&, parts, crew] { wrong += count_wrong(*crew, parts, 5000); });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0, "%d %s went wrong", wrong.load(), what);
}

// Helpers do come: with more than one core, a second thread takes part in work that is called for long enough.
template <class Work>
void helpers_come(Work work) {
  const std::shared_ptr<Crew> crew = Crew::shared();
  if (available_threads() < 2) return;
  const std::thread::id caller = std::this_thread::get_id();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  std::atomic<bool> helped{false};
  while (!helped && std::chrono::steady_clock::now() < end) {
    work(*crew, [&] {
      if (std::this_thread::get_id() != caller) helped = true;
    });
  }
  CHECK(helped && crew->size() > 0, "nobody came in 20 s");
}

void linger(int microseconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (std::chrono::steady_clock::now() < until) relax();
}

void share_with(Crew& crew, const std::function<void()>& here) {
  crew.share(2, 1e9, [&](int part) {
    here();
    linger(part ? 0 : 100);
  });
}

// In the middle of a walk that began alone.
void walk_with(Crew& crew, const std::function<void()>& here) {
  std::this_thread::sleep_for(std::chrono::milliseconds(3));  // until everybody sleeps
  std::atomic<int> first{0};
  crew.walk(2, 6000, 1e5, [&](const Team& team, int64_t begin, int64_t) {
    if (begin == 0 && team.rank == 0) first = team.size;
    if (first == 1) here();
    linger(100);
  });
}

// Steps so long that a helper, once awake, would be asleep again before the caller has done six of them alone.
void walk_slowly_with(Crew& crew, const std::function<void()>& here) {
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  crew.walk(2, 10, 6e5, [&](const Team&, int64_t begin, int64_t end) {
    here();
    linger(600 * int(end - begin));
  });
}

#if !defined(_WIN32)
bool blocks(int signal) {
  sigset_t mask;
  sigemptyset(&mask);
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, signal) == 1;
}

// A helper takes no signal to the process, and those that it raises itself; its starter takes what it took before.
void helpers_take_no_signals() {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> wrong{0};
  const bool before[] = {blocks(SIGTERM), blocks(SIGUSR1)};
  helpers_come([&](Crew& crew, const std::function<void()>& here) {
    share_with(crew, [&] {
      here();
      if (std::this_thread::get_id() == caller) return;
      wrong += !blocks(SIGTERM) || !blocks(SIGINT) || !blocks(SIGUSR1) || blocks(SIGSEGV) || blocks(SIGFPE);
    });
  });
  CHECK(wrong == 0, "%d parts were run by a helper that takes signals, or not its own", wrong.load());
  CHECK(before[0] == blocks(SIGTERM) && before[1] == blocks(SIGUSR1), "the caller's mask has changed");
}
#endif

// Helpers that spin are timed as they answer, and what they answered is forgotten after a while.
void answers_are_timed() {
  const std::shared_ptr<Crew> crew = Crew::shared();
  if (available_threads() < 2) return;
  CHECK(crew->distance(1) == 0, "a caller alone has nobody to wait for");
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (crew->distance(2) == 0 && std::chrono::steady_clock::now() < end) {
    crew->share(2, 1e5, [](int part) { linger(part ? 0 : 5); });
    linger(5);  // until the helper looks for something again
  }
  CHECK(crew->distance(2) > 0, "nobody answered in 20 s");
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  CHECK(crew->distance(2) == 0, "an old answer is still believed: %g", crew->distance(2));
}

// And so are the barriers of regions.
void barriers_are_timed() {
  if (!has_openmp()) return;
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  CHECK(regions_distance() == 0, "an old barrier is still believed: %g", regions_distance());
  parallel(2, [](const Team&) {});
  CHECK(regions_distance() > 0, "no barrier was timed");
}

// One who sleeps is left out, or woken: nothing hangs.
void after_a_pause() {
  const std::shared_ptr<Crew> crew = Crew::shared();
  int wrong = 0;
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 4));
    wrong += round % 2 ? wrong_parts(*crew, 3, 100) : wrong_walks(*crew, 3, 100);
  }
  CHECK(wrong == 0, "%d pieces of work went wrong", wrong);
}

void ends_with_its_last_holder() {
  const std::weak_ptr<Crew> watched = Crew::shared();
  CHECK(watched.expired(), "somebody still holds the crew");
}

void a_moment() {
  for (int i = 0; i < 200; ++i) relax();
}

// Now one side is the slower, now the other, so that each has to wait.
// helper_first: the helper is there before the user, or comes in the middle, or never.
void pipeline(int64_t chunks, bool helper, bool helper_first) {
  Pipeline line;
  std::vector<int64_t> slots(Pipeline::kSlots, -1);
  std::vector<int> prepared(static_cast<size_t>(chunks));
  const auto prepare = [&](int64_t k) {
    if (k / 50 % 2 == 0) a_moment();
    ++prepared[size_t(k)], slots[size_t(k % Pipeline::kSlots)] = k;
  };
  int64_t expected = 0, wrong = 0;
  std::thread other;
  const auto start = [&] { other = std::thread([&] { line.prepare_all(chunks, prepare); }); };
  if (helper && helper_first) start();
  line.use_all(chunks, prepare, [&](int64_t k) {
    if (k / 50 % 2 == 1) a_moment();
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
  several_callers("parts", wrong_parts);
  several_callers("walks", wrong_walks);
  helpers_come(share_with);
  helpers_come(walk_with);
  helpers_come(walk_slowly_with);
#if !defined(_WIN32)
  helpers_take_no_signals();
#endif
  answers_are_timed();
  barriers_are_timed();
  after_a_pause();
  ends_with_its_last_holder();
}

}  // namespace fastrnn::tests
