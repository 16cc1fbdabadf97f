// What several bindings check, and how their messages describe it. A value_error names what is wrong.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "network/config.h"

namespace fastrnn {

Config checked_config(const std::string& cell, int input, int hidden, int layers, bool bias, bool bidirectional,
                      int projection);

bool same(const Config& a, const Config& b);

// What a message calls a network: "lstm(64, 128, num_layers=2) in float32".
std::string describe(const Config& c, const char* dtype);

// Refuses more steps or rows than the core counts.
void check_size(const char* name, int64_t steps, int64_t batch);

// A copy of lengths [batch], each in 0..steps. Copied before they are looked at: another thread may write to them.
std::vector<int64_t> checked_lengths(const int64_t* given, int64_t steps, int64_t batch);
double checked_dropout(double p);

// The threads a call asked for; 0: all that the process may use.
int threads_of(int asked);

}  // namespace fastrnn
