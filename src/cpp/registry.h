// Which ISAs were compiled in, which this CPU can run, and which one new networks use.
#pragma once

#include <string>
#include <vector>

#include "backend.h"

namespace fastrnn {

constexpr int kMostBackends = 8;  // rows of cmake/Isas.cmake

std::vector<std::string> compiled_isas();
std::vector<std::string> usable_isas();  // best first

// The backend of new networks: the best usable one, or the one FASTRNN_ISA names. Throws std::invalid_argument when
// FASTRNN_ISA names one that is unknown or that this CPU cannot run.
const Backend& current_backend();
void set_isa(const std::string& name);

}  // namespace fastrnn
