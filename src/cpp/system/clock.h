// The clock that everything here looks at.
#pragma once

#include <chrono>
#include <cstdint>

namespace fastrnn {

// Of a clock that only goes forward.
inline int64_t nanoseconds() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

}  // namespace fastrnn
