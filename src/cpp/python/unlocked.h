// The interpreter's lock (GIL), released for a scope.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace fastrnn {

// A daemon thread that wants the lock back while the interpreter ends never gets it: up to Python 3.13 the interpreter
// ends the thread instead, which with glibc unwinds the stack like an exception. pybind11's release, a destructor,
// aborts the process then, and our callers' destructors must not run without the lock. So the thread waits here for the
// process to end, as it does with Python 3.14.
template <class Call>
auto or_stay(Call call) {
  try {
    return call();
  } catch (...) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

// Inside its scope other threads of Python run, and nothing here may touch an object.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
  ~Unlocked() {
    or_stay([this] { PyEval_RestoreThread(state_); });
  }

 private:
  PyThreadState* const state_;
};

// A call of so much work lets other Python threads run meanwhile: 20 us on one core. Below, handing the GIL over would
// cost more than it gives.
constexpr double kReleaseFlops = 2e6;

// advance() without the GIL where that pays.
template <class Advance>
void run_unlocked(double flops, Advance advance) {
  if (flops < kReleaseFlops) return advance();
  const Unlocked unlocked;
  advance();
}

// What a function of Python's own returned, which lets go of the lock as well. `call` is one call of the C API: an
// object that it held would be let go without the lock.
template <class Call>
pybind11::object called(Call call) {
  PyObject* const result = or_stay(call);
  if (!result) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(result);
}

}  // namespace fastrnn
