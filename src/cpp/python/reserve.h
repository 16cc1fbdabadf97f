// The tape of a pass in a tensor, as fastrnn.torch keeps it from forward to backward, and what else is as large: the
// gradients of weights.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "python/results.h"
#include "python/tensor.h"
#include "system/memory.h"

namespace fastrnn {

// A tape of n elements, and the gradient of a weight, of the dtype of `like`, which is T. Values are not set.
//
// Large ones lie in memory of ours, in pages of 2 MB, which is there since the step before. ms in torch's memory / in
// ours. The tape of LSTM T100 B64 H256 (Emerald Rapids), more than called with NumPy: where the two take turns 0.8 to
// 3.0 / 0.3 to 0.9, where torch's own layer does as well, which gives memory back to the system, 5.5 and 7.2 / 1.4 and
// 4.4. Gradients of twenty steps of LSTMCell 1024, 33 MB each (Zen 4, one thread): two rows 492 / 227, 64 rows 903 /
// 660. y and dx, which somebody may want to resize, gained nothing.
template <class T>
Tensor fresh_tape(const Tensor& like, size_t n) {
  return n * sizeof(T) < kHugeBlock ? like.fresh({1, {int64_t(n)}}) : tensor_in(tape_array<T>(n));
}
template <class T>
Tensor fresh_gradient(const Tensor& like, const Shape& shape) {
  const auto rows = shape.size[0], columns = shape.dims == 2 ? shape.size[1] : 1;
  if (size_t(rows) * size_t(columns) * sizeof(T) < kHugeBlock) return like.fresh(shape);
  return tensor_in(gradient_array<T>({shape.dims, {ssize_t(rows), ssize_t(columns)}}));
}

inline bool is_aligned(const Tensor& reserve) {
  return reinterpret_cast<uintptr_t>(reserve.data<char>()) % kAlign == 0;
}

// A tape where forward would have put it: hooks of saved tensors may bring it back from a file, to any place.
template <class T>
Tensor aligned_tape(const Tensor& saved) {
  const bool ours = saved.dims() == 1 && saved.contiguous() && saved.is(Tensor::Kind::floating, 8 * sizeof(T));
  if (is_aligned(saved) || !ours) return saved;  // check_reserve has the words
  Tensor copy = fresh_tape<T>(saved, size_t(saved.size(0)));
  std::memcpy(copy.data<char>(), saved.data<const char>(), size_t(saved.size(0)) * sizeof(T));
  return copy;
}

inline void check_reserve(const Tensor& reserve, size_t needed) {
  const bool placed = is_aligned(reserve), flat = reserve.dims() == 1 && reserve.contiguous();
  const size_t bytes = flat ? size_t(reserve.size(0)) * size_t(reserve.bits() / 8) : 0;
  if (!flat || !placed || bytes < needed) {
    throw std::invalid_argument("reserve: expected " + std::to_string(needed) + " bytes, got " + std::to_string(bytes) +
                                (placed ? "" : " at a place that is no multiple of 64"));
  }
}

}  // namespace fastrnn
