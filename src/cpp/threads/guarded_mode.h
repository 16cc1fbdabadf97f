// KernelMode for whole calls, which may enter a region.
#pragma once

#include "system/kernel_mode.h"

namespace fastrnn {

// Threads that a region starts inherit the mode of who enters it, and keep it for the program's own regions: so
// parallel() lifts this one while it enters.
class GuardedMode {
 public:
  GuardedMode();
  ~GuardedMode();
  GuardedMode(const GuardedMode&) = delete;

  // The mode that the outermost one of this thread found, where there is one, as long as this lives.
  class Lifted {
   public:
    Lifted();
    ~Lifted();
    Lifted(const Lifted&) = delete;

   private:
    const KernelMode* const lifted_;
  };

 private:
  const KernelMode mode_;
};

}  // namespace fastrnn
