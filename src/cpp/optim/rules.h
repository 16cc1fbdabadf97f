// How optimizers change weights: SGD and Adam, element by element, in the order of operations that the equations have
// in NumPy, so that any ISA computes the same bits. All of a chunk stays in the first-level cache, so that memory is
// read and written once. (Without vector types: the compiler makes vectors of these loops.)
#pragma once

#include "tasks.h"

namespace fastrnn {
namespace {

constexpr ptrdiff_t kUpdated = 1024;  // elements of a chunk

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

// g + decay w, in `scratch`, or g itself without a decay, which would make NaN of 0 times infinity.
template <class T>
const T* decayed(const T* g, const T* w, T decay, int n, T* scratch) {
  if (decay == 0) return g;
  for (int i = 0; i < n; ++i) scratch[i] = g[i] + decay * w[i];
  return scratch;
}

// v = momentum v + undamped g, or g at the first step.
template <class T>
void add_velocity(const SgdTask<T>& a, const T* g, int n, T* v) {
  const T momentum = a.momentum, undamped = a.undamped;
  for (int i = 0; i < n && a.first; ++i) v[i] = g[i];
  for (int i = 0; i < n && !a.first; ++i) v[i] = v[i] * momentum + undamped * g[i];
}

template <class T>
void sgd(const SgdTask<T>& task, ptrdiff_t begin, ptrdiff_t end) {
  const SgdTask<T> a = task;  // its numbers would be read anew after each store through a pointer of its own
  T scratch[kUpdated];
  for (ptrdiff_t at = begin; at < end; at += kUpdated) {
    const int n = int(end - at < kUpdated ? end - at : kUpdated);
    T* const w = a.weight + at;
    const T* g = decayed(a.grad + at, w, a.decay, n, scratch);
    if (a.velocity) {
      T* const v = a.velocity + at;
      add_velocity(a, g, n, v);
      if (a.nesterov) {
        for (int i = 0; i < n; ++i) scratch[i] = g[i] + a.momentum * v[i];
      }
      g = a.nesterov ? scratch : v;
    }
    for (int i = 0; i < n; ++i) w[i] = w[i] - a.rate * g[i];
  }
}

template <class T>
void adam(const AdamTask<T>& task, ptrdiff_t begin, ptrdiff_t end) {
  const AdamTask<T> a = task;
  T scratch[kUpdated];
  for (ptrdiff_t at = begin; at < end; at += kUpdated) {
    const int n = int(end - at < kUpdated ? end - at : kUpdated);
    T *const w = a.weight + at, *const mean = a.mean + at, *const square = a.square + at;
    if (a.shrink != 1) {
      for (int i = 0; i < n; ++i) w[i] = w[i] * a.shrink;
    }
    const T* const g = decayed(a.grad + at, w, a.decay, n, scratch);
    for (int i = 0; i < n; ++i) mean[i] = mean[i] * a.first + g[i] * a.rest_first;
    for (int i = 0; i < n; ++i) square[i] = square[i] * a.second + g[i] * g[i] * a.rest_second;
    for (int i = 0; i < n; ++i) w[i] = w[i] - mean[i] / (root(square[i]) / a.correction + a.eps) * a.rate;
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

}  // namespace
}  // namespace fastrnn
