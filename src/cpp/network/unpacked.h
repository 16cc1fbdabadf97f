// One step of a few rows by weights where they lie. To pack them for a single step, or to look whether those that were
// packed are still the same, reads all of them once more than to multiply with them does.
#pragma once

#include <vector>

#include "network/call.h"
#include "network/config.h"
#include "network/tape.h"
#include "plan/plan.h"

namespace fastrnn {

// Whether a pass is such a step.
template <class T>
bool suits_unpacked(const Config& config, const Backend& backend, const Sequence<T>& call) {
  return call.steps == 1 && call.batch >= 1 && call.batch <= kernels_of<T>(backend).unpacked_rows && !call.lengths &&
         !config.projection && config.hidden >= kPad && (call.dropout == 0 || config.layers == 1);
}

// Threads that read the weights of a layer together.
template <class T>
int unpacked_threads(const Config& c, const CellKernels<T>& cell, int layer, int threads) {
  const size_t values = size_t(cell.gates) * size_t(c.width()) * size_t(c.input_of(layer) + c.hidden);
  return values * sizeof(T) < kWorthReadingTogether ? 1 : threads;
}

// Plans of the pass back: each thread has some of the columns of weights, and of the rows of their gradients.
template <class T>
std::vector<Plan> unpacked_plans(const Config& c, const CellKernels<T>& cell, int threads) {
  std::vector<Plan> plans(size_t(c.layers));
  for (int layer = 0; layer < c.layers; ++layer) {
    Plan& plan = plans[size_t(layer)];
    plan.threads = unpacked_threads(c, cell, layer, threads);
    plan.split = plan.threads > 1 ? Split::units : Split::none;
  }
  return plans;
}

// The bits are those of Network::forward and Network::run of these weights, which are as in Network::pack.
template <class T>
void forward_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Tape<T>& tape);
template <class T>
void run_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Sequence<T>& call);

}  // namespace fastrnn
