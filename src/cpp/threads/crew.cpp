#include "threads/crew.h"

#include <system_error>

#include "system/clock.h"
#include "threads/signals.h"

namespace fastrnn {
namespace {

constexpr int64_t kAwake = 1'000'000;   // ns a helper spins for its next job; the OpenMP run-times do about the same
constexpr double kWorthWaking = 200e3;  // ns: waking costs the caller a few microseconds, and helps after 10 to 50
constexpr double kAnswer = 2e3;         // ns: who is awake answers in 100 to 300, unless it has lost its core
constexpr double kWakes = 150e3;        // ns: who was asleep has mostly woken, 70 to 100
constexpr int kFewAnswers = 8;
// ns; 80 to 140 measured where a cache line takes 55 to the next core, 400 to 500 where it takes 330. (In proportion
// from 100 on, LSTM I13 H64 was left to one thread while the cores were near.)
constexpr double kNearAnswer = 150;
constexpr int64_t kLately = 20'000'000;  // ns an answer is believed: a virtual core may have moved since

std::mutex shared_mutex;
std::weak_ptr<Crew> shared_crew;

}  // namespace

std::shared_ptr<Crew> Crew::shared() {
  // A child computes alone, and a thread that it has not may have held the mutex when it was forked: each of its layers
  // has a crew of its own that stays empty, of 9 KB.
  if (forked()) return std::shared_ptr<Crew>(new Crew);
  const std::lock_guard<std::mutex> lock(shared_mutex);
  std::shared_ptr<Crew> found = shared_crew.lock();
  if (!found) {
    // A forked child has none of its parent's threads, and would wait for them for ever.
    shared_crew = found = std::shared_ptr<Crew>(new Crew, [](const Crew* c) {
      if (!forked()) delete c;
    });
  }
  return found;
}

Crew::~Crew() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_.store(true), ++calls_;
  }
  call_.notify_all();
  for (int i = 0; i < size(); ++i) {
    helpers_[i].thread->join();
    delete helpers_[i].thread;
  }
}

Crew::Parts::Parts(int n) : parts(n) {
  help = [](Job& job) { static_cast<Parts&>(job).run(); };
}

int Crew::Parts::run() {
  const KernelMode mode;
  int n = 0;
  for (int part = next.fetch_add(1); part < parts; part = next.fetch_add(1), ++n) body(context, part);
  return n;
}

Crew::Gathering::Gathering() {
  help = [](Job& job) {
    Gathering& g = static_cast<Gathering&>(job);
    const int rank = g.ranks.fetch_add(1);
    for (Spin spin; g.size.load(std::memory_order_acquire) == 0;) spin();
    const KernelMode mode;
    g.body(g.context, {rank, g.size.load(), &g.barrier});
  };
}

void Crew::Answers::note(int64_t ns, int64_t now) {
  least_ = std::min(least_, ns);
  if (++few_ < kFewAnswers) return;
  ns_.store(least_, std::memory_order_relaxed), at_.store(now, std::memory_order_relaxed);
  few_ = 0, least_ = INT64_MAX;
}

int64_t Crew::Answers::lately(int64_t now) const {
  const int64_t ns = ns_.load(std::memory_order_relaxed);
  return ns && now - at_.load(std::memory_order_relaxed) < kLately ? ns : 0;
}

double Crew::distance(int threads) const {
  const int helpers = std::min(helpers_for(threads), size());
  if (helpers < 1) return 0;
  const int64_t now = nanoseconds();
  int64_t slowest = 0;
  for (int i = 0; i < helpers; ++i) slowest = std::max(slowest, helpers_[i].answers.lately(now));
  return double(slowest) / kNearAnswer;
}

uint64_t Crew::offer(Job& job, int helpers, bool awake) noexcept {
  uint64_t offered = 0;
  for (int i = 0; i < std::min(helpers, size()); ++i) {
    Job* nothing = nullptr;
    if (awake && !helpers_[i].awake.load(std::memory_order_relaxed)) continue;
    if (helpers_[i].offer.compare_exchange_strong(nothing, &job)) offered |= uint64_t(1) << i;
  }
  return offered;
}

void Crew::wait_for_answers(const Job& job, uint64_t offered, double patience) const noexcept {
  if (!offered) return;
  const int64_t begin = nanoseconds();
  for (int i = 0; offered; ++i, offered >>= 1) {
    while ((offered & 1) && helpers_[i].offer.load(std::memory_order_relaxed) == &job) {
      if (double(nanoseconds() - begin) > patience) return;
      relax();
    }
  }
}

int Crew::withdraw(Job& job, uint64_t offered) noexcept {
  int taken = 0;
  for (int i = 0; offered; ++i, offered >>= 1) {
    Job* mine = &job;
    if ((offered & 1) && !helpers_[i].offer.compare_exchange_strong(mine, nullptr)) ++taken;
  }
  return taken;
}

void Crew::hand_out(Parts& job, double ns) noexcept {
  const int helpers = helpers_for(job.parts);
  if (ns > 0) job.offered_at = nanoseconds();
  const uint64_t offered = offer(job, helpers, false);
  call_for(helpers, ns);
  {
    const KernelMode mode;
    job.body(job.context, 0);
  }
  const int ran = 1 + job.run();
  // The only helper asked has run a part, so there is no offer to withdraw: its line need not travel back.
  const int taken = offered == 1 && ran < job.parts ? 1 : withdraw(job, offered);
  for (Spin spin; job.left.load(std::memory_order_acquire) != taken;) spin();
}

void Crew::assemble(Gathering& job, double patience, int threads, bool called) noexcept {
  const int helpers = helpers_for(threads);
  const bool all = called && patience > kAnswer;  // worth it to wait for those who wake now
  job.offered_at = nanoseconds();
  const uint64_t offered = offer(job, helpers, !all);
  wait_for_answers(job, offered, all ? std::min(patience, kWakes) : kAnswer);
  const int taken = withdraw(job, offered);
  job.size.store(1 + taken, std::memory_order_release);
  {
    const KernelMode mode;
    job.body(job.context, {0, 1 + taken, &job.barrier});
  }
  for (Spin spin; job.left.load(std::memory_order_acquire) != taken;) spin();
}

// Six steps are as many as a register tile has rows, over which W x of them is multiplied; but after 20 us somebody may
// be awake by now, and who is awake does not wait for more than a millisecond.
int64_t Crew::few_steps(double ns) {
  const double least = std::min(6.0, kAwake / 5 / ns);
  return std::max<int64_t>(1, int64_t(std::max(20e3 / ns, least)));
}

bool Crew::call_for(int helpers, double ns) noexcept {
  if (size() >= helpers && asleep_.load(std::memory_order_relaxed) == 0) return true;
  const int64_t time = nanoseconds(), before = called_at_.exchange(time);
  if (helpers < 1 || (time - before > kAwake && ns < kWorthWaking)) return false;
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock) return true;  // somebody else does so now, or a helper falls asleep: waiting costs more than trying again
  for (int i = 0; i < size(); ++i) {
    if (!helpers_[i].awake.load()) helpers_[i].place.begin(*helpers_[i].thread);
  }
  while (size() < helpers && start(helpers_[size()])) size_.fetch_add(1);
  ++calls_;
  asleep_.store(0);  // by the caller: until they are awake, every call would wake them again, a system call each
  call_.notify_all();
  return true;
}

bool Crew::start(Helper& helper) noexcept {
  try {
    note_threads();
    const SignalsElsewhere scope;
    helper.thread = new std::thread([this, &helper] { serve(helper); });
    helper.place.begin(*helper.thread);
    return true;
  } catch (const std::exception&) {
    return false;  // no memory or no thread to be had: work is done without
  }
}

void Crew::serve(Helper& helper) noexcept {
  forget_priority();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    helper.place.end(), helper.awake.store(true);
  }
  int64_t idle_since = nanoseconds();
  unsigned regions_seen = regions();
  for (unsigned round = 1; !stop_.load(std::memory_order_relaxed); ++round) {
    Job* job = helper.offer.load(std::memory_order_relaxed);
    if (job && helper.offer.compare_exchange_strong(job, nullptr)) {
      if (job->offered_at > idle_since) {
        const int64_t now = nanoseconds();
        helper.answers.note(now - job->offered_at, now);
      }
      job->help(*job);
      job->left.fetch_add(1, std::memory_order_release);
      idle_since = nanoseconds();
      continue;
    }
    relax();
    const bool disturbs = regions() != regions_seen;  // the threads of a region need the core
    if (!disturbs && (round % 64 || nanoseconds() - idle_since < kAwake)) continue;
    sleep(helper);
    idle_since = nanoseconds(), regions_seen = regions();
  }
}

void Crew::sleep(Helper& helper) {
  std::unique_lock<std::mutex> lock(mutex_);
  helper.awake.store(false), asleep_.fetch_add(1);
  const uint64_t seen = calls_;
  call_.wait(lock, [&] { return stop_.load() || calls_ != seen; });
  helper.place.end(), helper.awake.store(true);
}

}  // namespace fastrnn
