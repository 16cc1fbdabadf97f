// The largest sizes that are taken, whoever asks.
#pragma once

#include <cstdint>

namespace fastrnn {

constexpr int kMaxSize = 1 << 20;  // of inputs, units, layers, features, and the rows of a stream or a pool
constexpr int kMaxThreads = 1024;
// Steps are counted with int32_t, and so are the rows of a few steps: plan.cpp says of how many.
constexpr int64_t kMaxSteps = INT32_MAX;
constexpr int64_t kMaxBatch = 1 << 28;
constexpr double kAddressable = double(PTRDIFF_MAX);  // bytes: what exceeds a part of it is refused before it overflows
constexpr int64_t kMaxDenseRows = INT32_MAX;          // of a dense layer, which takes them some at a time

}  // namespace fastrnn
