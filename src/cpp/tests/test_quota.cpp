// What the control groups of a process grant it, in trees of files as Linux shows them.
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "system/quota.h"
#include "tests/check.h"

namespace fastrnn::tests {
namespace {

namespace fs = std::filesystem;
using Files = std::vector<std::pair<const char*, const char*>>;

double quota_of(const char* groups, const Files& files) {
  const fs::path root = fs::temp_directory_path() / "fastrnn_quota_test";
  const auto write = [&](const std::string& path, const char* text) {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text << '\n';
  };
  fs::remove_all(root);
  write("proc/self/cgroup", groups);
  for (const auto& [path, text] : files) write("sys/fs/cgroup/" + std::string(path), text);
  const double cores = cpu_quota(root.string());
  fs::remove_all(root);
  return cores;
}

void check(const char* what, double found, double expected) {
  CHECK(found == expected, "%s: %g cores instead of %g", what, found, expected);
}

}  // namespace

void test_quota() {
  constexpr double unlimited = kUnlimitedQuota;
  check("no file", cpu_quota("/nowhere"), unlimited);
  check("no limit", quota_of("0::/", {{"cpu.max", "max 100000"}}), unlimited);
  check("a container", quota_of("0::/", {{"cpu.max", "150000 100000"}}), 1.5);
  check("a group in groups", quota_of("0::/a/b", {{"a/cpu.max", "300000 100000"}, {"a/b/cpu.max", "400000 100000"}}),
        3);
  check("a group that is not seen", quota_of("0::/kube/pod/x", {{"cpu.max", "50000 100000"}}), 0.5);
  const Files old = {{"cpu,cpuacct/x/cpu.cfs_quota_us", "200000"}, {"cpu,cpuacct/x/cpu.cfs_period_us", "100000"}};
  check("version 1", quota_of("5:memory:/x\n4:cpu,cpuacct:/x\n0::/", old), 2);
  check("of another controller", quota_of("4:cpuset,cpuacct:/x", old), unlimited);
  check("version 1, no limit",
        quota_of("4:cpu:/", {{"cpu/cpu.cfs_quota_us", "-1"}, {"cpu/cpu.cfs_period_us", "100000"}}), unlimited);
  for (const char* const nonsense : {"", "::", "0:/", "0::x", "0:::", "0::/\n\n1"}) {
    check(nonsense, quota_of(nonsense, {{"cpu.max", "a b"}}), unlimited);
  }
  check("more than any machine has", quota_of("0::/", {{"cpu.max", "1e300 1"}}), unlimited);
  check("a period of nothing", quota_of("0::/", {{"cpu.max", "100000 0"}}), unlimited);
}

}  // namespace fastrnn::tests
