// Tensors that a caller of fastrnn.torch gives, without gaps for the core.
#pragma once

#include <forward_list>
#include <vector>

#include "network/config.h"
#include "python/tensor.h"

namespace fastrnn {

// What had to be copied lives as long as this; what was given, the caller holds.
class Given {
 public:
  // A tensor of this shape without gaps.
  template <class T>
  const T* required(py::handle object, Name name, const Shape& shape) {
    const Tensor t = tensor_of(object, name);
    check<T>(t, name, shape);
    return kept(object, t.dense(name)).template data<const T>();
  }

  // `read` is the tensor that was given, or a copy.
  const Tensor& kept(py::handle given, const Tensor& read) {
    if (read.object().is(given)) return read;
    return copies_.emplace_front(read);
  }

 private:
  std::forward_list<Tensor> copies_;  // which takes no memory where there are none
};

// visit(shape) for each weight, in torch's order.
template <class Visit>
void each_shape(const Config& config, int gates, Visit visit) {
  each_weight(config, gates, [&](int64_t rows, int64_t columns) { visit(Shape{columns ? 2 : 1, {rows, columns}}); });
}

// All weights of a stack, in torch's order.
template <class T>
class GivenWeights {
 public:
  GivenWeights(const Config& config, int gates, const py::sequence& given) : held_(given) {
    const size_t count = config.weight_count();
    if (held_.size() != count) {
      throw py::value_error("weights: expected " + std::to_string(count) + ", got " + std::to_string(held_.size()));
    }
    at_.reserve(count);
    each_shape(config, gates, [&](const Shape& shape) {
      const size_t i = at_.size();
      at_.push_back(given_.required<T>(held_[i], {"weights", int(i)}, shape));
    });
  }

  const T* const* data() const { return at_.data(); }
  const std::vector<const T*>& at() const { return at_; }

 private:
  py::tuple held_;
  Given given_;
  std::vector<const T*> at_;
};

}  // namespace fastrnn
