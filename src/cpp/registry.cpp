#include "registry.h"

#include <atomic>
#include <cstdlib>
#include <iterator>
#include <stdexcept>

namespace fastrnn {

// Written by CMake from the rows of cmake/Isas.cmake, best first: FASTRNN_ROW(name, run-time predicate).
#define FASTRNN_ROW(name, predicate) FASTRNN_KERNELS_TABLE extern const Backend backend_##name;
#include "isas.inc"
#undef FASTRNN_ROW

namespace {

struct Row {
  const Backend* backend;
  bool (*runs_here)();
};

const Row kRows[] = {
#define FASTRNN_ROW(name, predicate) {&backend_##name, [] { return bool(predicate); }},
#include "isas.inc"
#undef FASTRNN_ROW
};
static_assert(std::size(kRows) <= kMostBackends, "plan/core.cpp has a place for the figures of so many");

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const Backend& find(const std::string& name, const char* who) {
  bool compiled = false;
  for (const Row& row : kRows) {
    if (name != row.backend->name) continue;
    if (row.runs_here()) return *row.backend;
    compiled = true;
  }
  throw std::invalid_argument(std::string(who) + ": expected one of " + joined(usable_isas()) + ", got '" + name +
                              "', " + (compiled ? "which this CPU cannot run" : "which is not compiled in"));
}

const Backend& choose() {
  const char* forced = std::getenv("FASTRNN_ISA");
  if (forced && *forced) return find(forced, "FASTRNN_ISA");
  for (const Row& row : kRows) {
    if (row.runs_here()) return *row.backend;
  }
  throw std::invalid_argument("fastrnn: this CPU runs none of the compiled ISAs: " + joined(compiled_isas()));
}

std::atomic<const Backend*> current{nullptr};

}  // namespace

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Row& row : kRows) names.push_back(row.backend->name);
  return names;
}

std::vector<std::string> usable_isas() {
  std::vector<std::string> names;
  for (const Row& row : kRows) {
    if (row.runs_here()) names.push_back(row.backend->name);
  }
  return names;
}

const Backend& current_backend() {
  const Backend* backend = current.load(std::memory_order_acquire);
  if (!backend) current.store(backend = &choose(), std::memory_order_release);
  return *backend;
}

void set_isa(const std::string& name) { current.store(&find(name, "isa"), std::memory_order_release); }

}  // namespace fastrnn
