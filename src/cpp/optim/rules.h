// How optimizers change weights: SGD and Adam, element by element, in the order of operations that the equations have
// in NumPy, whose bits these are. A chunk's values stay in the first-level cache, so that memory is read and written
// once. (Compiled once: the compiler makes vectors of these loops, and wider ones gain little beside roots.)
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>

namespace fastrnn {

// A step of SGD, on arrays of equal length.
template <class T>
struct SgdTask {
  T* weight;
  const T* grad;
  T* velocity;  // null without momentum
  T rate, momentum, undamped, decay;
  bool nesterov, first;  // first: velocity has no value yet
};

// A step of Adam or AdamW, on arrays of equal length.
template <class T>
struct AdamTask {
  T* weight;
  const T* grad;
  T *mean, *square;
  T first, rest_first, second, rest_second;  // b1, 1 - b1, b2, 1 - b2
  T correction, eps, rate;                   // sqrt(1 - b2^t), eps, lr / (1 - b1^t)
  T decay, shrink;                           // added to the gradient times w; 1, or what w is multiplied by
};

constexpr ptrdiff_t kUpdated = 1024;  // elements of a chunk

// to = g + decay w. (Without a decay nobody calls it: 0 times infinity is NaN.)
template <class T>
void decay_into(T* __restrict to, const T* __restrict g, const T* __restrict w, T decay, int n) {
  for (int i = 0; i < n; ++i) to[i] = g[i] + decay * w[i];
}

// v = momentum v + undamped g
template <class T>
void add_velocity(T* __restrict v, const T* __restrict g, T momentum, T undamped, int n) {
  for (int i = 0; i < n; ++i) v[i] = v[i] * momentum + undamped * g[i];
}

// w = w - rate g
template <class T>
void descend(T* __restrict w, const T* __restrict g, T rate, int n) {
  for (int i = 0; i < n; ++i) w[i] = w[i] - rate * g[i];
}

template <class T>
void sgd(const SgdTask<T>& a, ptrdiff_t begin, ptrdiff_t end) {
  T scratch[kUpdated];
  for (ptrdiff_t at = begin; at < end; at += kUpdated) {
    const int n = int(end - at < kUpdated ? end - at : kUpdated);
    T *const w = a.weight + at, *const v = a.velocity ? a.velocity + at : nullptr;
    const T* g = a.grad + at;
    if (a.decay != 0) decay_into(scratch, g, w, a.decay, n), g = scratch;
    if (v && a.first) std::memcpy(v, g, size_t(n) * sizeof(T));
    if (v && !a.first) add_velocity(v, g, a.momentum, a.undamped, n);
    if (v && a.nesterov) {
      for (int i = 0; i < n; ++i) scratch[i] = g[i] + a.momentum * v[i];
    }
    descend(w, v ? a.nesterov ? scratch : v : g, a.rate, n);
  }
}

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = shrink w - rate m / (sqrt(v) / correction + eps)
template <class T>
void adam_chunk(AdamTask<T> a, T* __restrict w, const T* __restrict g, T* __restrict mean, T* __restrict square,
                int n) {
  for (int i = 0; i < n; ++i) {
    mean[i] = mean[i] * a.first + g[i] * a.rest_first;
    square[i] = square[i] * a.second + g[i] * g[i] * a.rest_second;
    w[i] = w[i] * a.shrink - mean[i] / (std::sqrt(square[i]) / a.correction + a.eps) * a.rate;
  }
}

template <class T>
void adam(const AdamTask<T>& a, ptrdiff_t begin, ptrdiff_t end) {
  T scratch[kUpdated];
  for (ptrdiff_t at = begin; at < end; at += kUpdated) {
    const int n = int(end - at < kUpdated ? end - at : kUpdated);
    T* const w = a.weight + at;
    const T* g = a.grad + at;
    if (a.decay != 0) decay_into(scratch, g, w, a.decay, n), g = scratch;
    adam_chunk(a, w, g, a.mean + at, a.square + at, n);
  }
}

// Of the elements, in float64, by sums that need not wait for each other.
template <class T>
double sum_of_squares(const T* values, ptrdiff_t n) {
  constexpr int sums = 32;
  double sum[sums] = {};
  ptrdiff_t i = 0;
  for (; i + sums <= n; i += sums) {
    for (int j = 0; j < sums; ++j) sum[j] += double(values[i + j]) * double(values[i + j]);
  }
  for (int j = 0; i + j < n; ++j) sum[j] += double(values[i + j]) * double(values[i + j]);
  for (int half = sums / 2; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) sum[j] += sum[j + half];
  }
  return sum[0];
}

}  // namespace fastrnn
