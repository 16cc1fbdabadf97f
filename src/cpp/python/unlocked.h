// The interpreter's lock (GIL), released for a scope.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace fastrnn {

// Inside its scope other threads of Python run, and nothing here may touch an object. A daemon
// thread that wants the lock back while the interpreter ends never gets it: up to Python 3.13 the
// interpreter ends the thread instead, which with glibc unwinds the stack like an exception.
// pybind11's release, a destructor, aborts the process then, and our callers' destructors must not
// run without the lock. So the thread waits for the process to end, as it does with Python 3.14.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
  ~Unlocked() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }

 private:
  PyThreadState* const state_;
};

}  // namespace fastrnn
