#include "network/crew.h"

#include <algorithm>
#include <system_error>

#include "network/threads.h"

namespace fastrnn {
namespace {

constexpr int64_t kAwake = 1'000'000;   // ns a helper spins for its next job; the OpenMP run-times do about the same
constexpr double kWorthWaking = 200e3;  // ns: waking costs the caller a few microseconds, and helps after 10 to 50

}  // namespace

std::shared_ptr<Crew> Crew::shared() {
  static std::mutex mutex;
  static std::weak_ptr<Crew> crew;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Crew> found = crew.lock();
  if (!found) {
    // A forked child has none of its parent's threads, and would wait for them for ever.
    crew = found = std::shared_ptr<Crew>(new Crew, [](const Crew* c) {
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

int Crew::Job::work() noexcept {
  const FlushDenormals flush;
  int n = 0;
  for (int part = next.fetch_add(1); part < parts; part = next.fetch_add(1), ++n) body(context, part);
  return n;
}

void Crew::share(Job& job, double ns) noexcept {
  const int wanted = std::min({job.parts - 1, kMost, available_threads() - 1});
  uint64_t offered = 0;
  for (int i = 0; i < std::min(wanted, size()); ++i) {
    Job* nothing = nullptr;
    if (helpers_[i].offer.compare_exchange_strong(nothing, &job)) offered |= uint64_t(1) << i;
  }
  if (size() < wanted || asleep_.load(std::memory_order_relaxed) > 0) call_for(wanted, ns);
  {
    const FlushDenormals flush;
    job.body(job.context, 0);
  }
  const int ran = 1 + job.work();
  int taken = 0;
  // The only helper asked has run a part, so there is no offer to withdraw: its line need not travel back.
  if (offered == 1 && ran < job.parts) offered = 0, taken = 1;
  for (int i = 0; offered; ++i, offered >>= 1) {
    Job* mine = &job;
    if ((offered & 1) && !helpers_[i].offer.compare_exchange_strong(mine, nullptr)) ++taken;
  }
  for (Spin spin; job.left.load(std::memory_order_acquire) != taken;) spin();
}

// Wakes the helpers and starts those that are missing, where that is worth it.
void Crew::call_for(int helpers, double ns) noexcept {
  const int64_t time = nanoseconds(), before = called_at_.exchange(time);
  if (helpers < 1 || (time - before > kAwake && ns < kWorthWaking)) return;
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock) return;
  while (size() < helpers && start(helpers_[size()])) size_.fetch_add(1);
  ++calls_;
  asleep_.store(0);  // by the caller: until they are awake, every call would wake them again, a system call each
  call_.notify_all();
}

bool Crew::start(Helper& helper) noexcept {
  try {
    note_threads();
    helper.thread = new std::thread([this, &helper] { serve(helper); });
    return true;
  } catch (const std::exception&) {
    return false;  // no memory or no thread to be had: work is done without
  }
}

void Crew::serve(Helper& helper) noexcept {
  int64_t idle_since = nanoseconds();
  unsigned regions_seen = regions();
  for (unsigned round = 1; !stop_.load(std::memory_order_relaxed); ++round) {
    Job* job = helper.offer.load(std::memory_order_relaxed);
    if (job && helper.offer.compare_exchange_strong(job, nullptr)) {
      job->work();
      job->left.fetch_add(1, std::memory_order_release);
      idle_since = nanoseconds();
      continue;
    }
    relax();
    const bool disturbs = regions() != regions_seen;  // the threads of a region need the core
    if (!disturbs && (round % 64 || nanoseconds() - idle_since < kAwake)) continue;
    sleep();
    idle_since = nanoseconds(), regions_seen = regions();
  }
}

void Crew::sleep() {
  std::unique_lock<std::mutex> lock(mutex_);
  asleep_.fetch_add(1);
  const uint64_t seen = calls_;
  call_.wait(lock, [&] { return stop_.load() || calls_ != seen; });
}

}  // namespace fastrnn
