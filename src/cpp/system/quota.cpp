#include "system/quota.h"

#include <algorithm>
#include <exception>
#include <fstream>

namespace fastrnn {
namespace {

// Version 2: "150000 100000", microseconds of a period, or "max 100000".
double of_group(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period && period > 0 ? quota / period : kUnlimitedQuota;
}

// Version 1: the same in two files, -1 without a limit.
double of_old_group(const std::string& folder) {
  std::ifstream quotas(folder + "/cpu.cfs_quota_us"), periods(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quotas >> quota && periods >> period && quota > 0 && period > 0 ? quota / period : kUnlimitedQuota;
}

// The least of a group and of all those it lies in. Inside a container some of them may not be seen.
double least(double (*quota)(const std::string& folder), const std::string& mount, std::string group) {
  double cores = quota(mount);
  for (; group.size() > 1; group.erase(group.rfind('/'))) cores = std::min(cores, quota(mount + group));
  return cores;
}

// By the lines "number:controllers:group" of /proc/self/cgroup; version 2 has no controllers there.
double read_quota(const std::string& root) {
  const std::string mount = root + "/sys/fs/cgroup";
  std::ifstream groups(root + "/proc/self/cgroup");
  double cores = kUnlimitedQuota;
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
    if (group.empty() || group[0] != '/') continue;
    if (controllers.empty()) {
      cores = std::min(cores, least(of_group, mount, group));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      for (const char* const name : {"/cpu", "/cpu,cpuacct"}) {
        cores = std::min(cores, least(of_old_group, mount + name, group));
      }
    }
  }
  return cores;
}

}  // namespace

double cpu_quota(const std::string& root) noexcept {
  try {
    return read_quota(root);
  } catch (const std::exception&) {
    return kUnlimitedQuota;
  }
}

}  // namespace fastrnn
