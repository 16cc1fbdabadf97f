// How fastrnn.torch says what to compute, and the checks of it. Operators may be called with anything.
#pragma once

#include <optional>
#include <vector>

#include "network/config.h"
#include "python/tensor.h"

namespace fastrnn {

enum Layout { kTime, kBatch, kUnbatched, kStep, kPacked };  // as in fastrnn/torch/_call.py

struct Axes {
  int dims, step, row;  // how many, and which are T and B; -1: there is none
};

// What forward and backward have in common but for differentiable tensors.
struct TorchCall {
  // From a `Call` of fastrnn/torch/_call.py. ValueError and TypeError name what is wrong.
  TorchCall(const py::tuple& call, int threads);

  Axes axes() const;

  Layout layout;
  int64_t batch;  // the rows of a packed input's first step
  double dropout;
  std::optional<Tensor> batch_sizes;  // int64 [T] of a packed input
  std::optional<Tensor> lengths;      // int64 [B] of a padded one whose rows may end earlier
  uint64_t seed = 0;
  int threads;
};

// The input, of any floating-point dtype, readable for the core: dense features, packed rows without gaps.
Tensor input_of(py::handle object, const Config& config, const TorchCall& call);

// Lengths [batch] of the rows of a padded input with `lengths`, each in 0..steps.
std::vector<int64_t> padded_lengths(const Tensor& lengths, int64_t steps, int64_t batch);
// Those of a packed sequence of so many rows in all; an error where the sizes are none of packed rows.
std::vector<int64_t> packed_lengths(const TorchCall& call, int64_t rows);

}  // namespace fastrnn
