// One step by weights where they lie. To pack them for a single step reads and writes all of them once more than to
// multiply with them does. A few rows are multiplied with them as they are; for more, a piece of them at a time is
// packed in the second-level cache and multiplied there.
#pragma once

#include <vector>

#include "network/call.h"
#include "network/config.h"
#include "network/pieces.h"
#include "network/tape.h"
#include "plan/plan.h"

namespace fastrnn {

// Whether a pass is such a step, and whether it is one of a single group of rows (few_rows.h in gemm).
template <class T>
bool suits_unpacked(const Config& config, const Sequence<T>& call) {
  const bool plain = !call.lengths && !config.projection && (call.dropout == 0 || config.layers == 1);
  return plain && call.steps == 1 && call.batch >= 1 && call.batch <= kMostUnpackedRows && config.hidden >= kPad;
}
template <class T>
bool fits_one_group(const Config& config, const Backend& backend, const Sequence<T>& call) {
  return suits_unpacked(config, call) && call.batch <= kernels_of<T>(backend).group_rows;
}

// Threads that read the weights of a layer together.
template <class T>
int unpacked_threads(const Config& c, const Kernels<T>& kernels, int layer, int batch, int threads) {
  const double values = multiply_adds(c, kernels.cells[int(c.cell)].gates, layer);
  if (values * sizeof(T) >= kWorthReadingTogether) return threads;
  return threads_for(2 * values * batch, kernels.lanes, threads);
}

// Plans of the pass back: each thread has some of the columns of weights, and of the rows of their gradients.
template <class T>
std::vector<Plan> unpacked_plans(const Config& c, const Kernels<T>& kernels, int batch, int threads) {
  std::vector<Plan> plans(size_t(c.layers));
  for (int layer = 0; layer < c.layers; ++layer) {
    Plan& plan = plans[size_t(layer)];
    plan.threads = unpacked_threads(c, kernels, layer, batch, threads);
    plan.split = plan.threads > 1 ? Split::units : Split::none;
  }
  return plans;
}

// The bits are those of Network::forward and Network::run of these weights, which are as in Network::pack.
template <class T>
void forward_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Tape<T>& tape,
                      BlockPool& pool);
template <class T>
void run_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Sequence<T>& call,
                  BlockPool& pool);

}  // namespace fastrnn
