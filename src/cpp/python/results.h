// Memory of results: large arrays take over that of earlier ones which are gone.
#pragma once

#include "python/plain.h"

namespace fastrnn {

// A new array whose values are not set, and where they lie. The memory of a large one is kept when it is gone, for the
// next: fresh pages would cost a training step of LSTM T100 B16 H128 8 %, and a step of RNN B512 H256, whenever malloc
// gives the pages of its results back, a third (Emerald Rapids, two threads, 697 us, 430 so).
template <class T>
py::object result_array(const ArrayShape& shape, T*& data);

// That a call has passed: the memory that none of the last 64 has taken goes back to the system.
void age_results();

// The same in pools of their own, for what lies in tensors: tapes of n elements, and gradients of weights. (Of these a
// step has two a layer: they would push the tapes out.) 256 MB of either are kept at most, beside 64 MB of results.
template <class T>
py::object tape_array(size_t n);
template <class T>
py::object gradient_array(const ArrayShape& shape);

}  // namespace fastrnn
