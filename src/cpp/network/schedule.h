// Which rows live at which step: rows ordered by length, longest first, so that the live ones are always a prefix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "system/few.h"
#include "tasks.h"

namespace fastrnn {

class RowOrder {
 public:
  // lengths: [batch], each in [0, steps], or null: every row has `steps`.
  RowOrder(int64_t steps, int batch, const int64_t* lengths)
      : ragged_(lengths != nullptr), order_(size_t(batch)), length_(size_t(batch)), first_(size_t(steps) + 1) {
    std::fill(length_.begin(), length_.end(), int32_t(steps));
    std::iota(order_.begin(), order_.end(), 0);
    if (lengths) {
      std::stable_sort(order_.begin(), order_.end(), [&](int a, int b) { return lengths[a] > lengths[b]; });
      for (int place = 0; place < batch; ++place) length_[place] = int32_t(lengths[order_[place]]);
    }
    int live = batch;
    for (int64_t step = 0; step < steps; ++step) {
      while (live > 0 && length_[live - 1] <= step) --live;
      first_[step + 1] = first_[step] + live;
    }
  }

  Schedule schedule(bool reverse) const { return {order_.data(), length_.data(), first_.data(), reverse}; }
  int64_t steps() const { return int64_t(first_.size()) - 1; }
  int batch() const { return int(order_.size()); }
  int64_t rows() const { return first_.back(); }  // live (step, place) pairs
  int64_t rows(int64_t begin, int64_t end) const { return first_[end] - first_[begin]; }
  bool ragged() const { return ragged_; }
  size_t bytes() const { return (order_.size() + length_.size()) * sizeof(int32_t) + first_.size() * sizeof(int64_t); }
  int row(int place) const { return order_[place]; }
  int length(int place) const { return length_[place]; }

 private:
  bool ragged_;
  Few<int32_t, 8> order_, length_;
  Few<int64_t, 17> first_;  // of 16 steps
};

}  // namespace fastrnn
