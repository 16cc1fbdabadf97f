// What a plan wants to know of a core of this machine.
#pragma once

#include "backend.h"

namespace fastrnn {

struct Core {
  double l2_bytes;         // of its second-level cache
  double l3_gbs;           // bytes a ns that it reads from behind that
  double fmas;             // multiply-adds of a vector that it does in a ns
  int l1_bytes = 1 << 15;  // of its first-level cache for data

  // What the system tells, for weights of up to half the second-level cache: no plan for them asks what lies behind it.
  static Core usual();
  // The others measured once in a process and for a backend: about 1 ms for 1 MB
  // of second-level cache, of which it reads and writes ten times as much.
  static Core measured(const Backend& backend);
};

}  // namespace fastrnn
