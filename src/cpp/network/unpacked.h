// One step of a few rows by weights where they lie. To pack them for a single step, or to look whether those that were
// packed are still the same, reads all of them once more than to multiply with them does.
#pragma once

#include "network/call.h"
#include "network/config.h"

namespace fastrnn {

// Whether a pass without a tape is such a step.
template <class T>
bool suits_unpacked(const Config& config, const Backend& backend, const Sequence<T>& call) {
  return call.steps == 1 && call.batch >= 1 && call.batch <= kernels_of<T>(backend).unpacked_rows && !call.lengths &&
         !config.projection && config.hidden >= kPad && (call.dropout == 0 || config.layers == 1);
}

// The same bits as Network::run of those weights, which are as in Network::pack.
template <class T>
void run_unpacked(const Config& config, const Backend& backend, const T* const* weights, const Sequence<T>& call);

}  // namespace fastrnn
