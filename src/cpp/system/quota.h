// How much of the machine's time the control groups of this process grant it (Linux): the limit of a container or a
// pod. Threads that compute, or spin, beyond that are all stopped for the rest of every tenth of a second.
#pragma once

#include <string>

namespace fastrnn {

// Finite, since infinity made an int sets FE_INVALID, and stops a program that traps it.
constexpr double kUnlimitedQuota = 1 << 20;

// Cores; kUnlimitedQuota where nothing limits. root stands in front of /proc and /sys.
double cpu_quota(const std::string& root = "") noexcept;

}  // namespace fastrnn
