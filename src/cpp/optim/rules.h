// How optimizers change weights: SGD and Adam, element by element, in the order of operations that the equations have
// in NumPy, whose bits these are. Memory is read and written once. Adam takes 0.42 ns an element with AVX2 and AVX-512,
// with 128 bits 0.80 (Zen 4, weights in the caches; of 32 MB of arrays 0.52 and 0.81): a root and two quotients, which
// take as long for a narrower vector.
#pragma once

#include "simd/lanes.h"
#include "tasks.h"

namespace fastrnn {
namespace {

// visit(at, lanes) for elements [begin, end), a vector at a time, of which the last may have fewer lanes.
template <class T, class Visit>
FASTRNN_INLINE void each_vector(ptrdiff_t begin, ptrdiff_t end, Visit visit) {
  for (; begin + kLanes<T> <= end; begin += kLanes<T>) visit(begin, kLanes<T>);
  if (begin < end) visit(begin, int(end - begin));
}

// g + decay w. (Without a decay nothing is added: 0 times infinity is NaN.)
template <class T>
FASTRNN_INLINE vec<T> decayed(vec<T> g, const T* w, int lanes, T decay) {
  return decay != 0 ? g + broadcast(decay) * load_first(w, lanes) : g;
}

// v = momentum v + undamped g;  w = w - rate v, with Nesterov's momentum w - rate (g + momentum v). A chunk of v is
// done before that of w, in the first-level cache. LSTM H512, one thread of Zen 4, us: so 520 to 640 (AVX2 530 to 550),
// by chunks of 1,024, a page of floats, 750 to 1,000 (570), both at once 660 to 790.
template <class T>
void sgd_chunk(const SgdTask<T>& task, ptrdiff_t begin, ptrdiff_t end) {
  const SgdTask<T> a = task;  // which no store changes
  const auto gradient = [&](ptrdiff_t at, int lanes) {
    return decayed(load_first(a.grad + at, lanes), a.weight + at, lanes, a.decay);
  };
  const auto velocity = [&](ptrdiff_t at, int lanes) { return load_first(a.velocity + at, lanes); };
  const auto descend = [&](auto step) {
    each_vector<T>(begin, end, [&](ptrdiff_t at, int lanes) {
      T* const w = a.weight + at;
      store_first(w, load_first(w, lanes) - broadcast(a.rate) * step(at, lanes), lanes);
    });
  };
  if (!a.velocity) return descend(gradient);
  each_vector<T>(begin, end, [&](ptrdiff_t at, int lanes) {
    const vec<T> g = gradient(at, lanes);
    const vec<T> v = a.first ? g : velocity(at, lanes) * broadcast(a.momentum) + broadcast(a.undamped) * g;
    store_first(a.velocity + at, v, lanes);
  });
  if (!a.nesterov) return descend(velocity);
  descend([&](ptrdiff_t at, int lanes) { return gradient(at, lanes) + broadcast(a.momentum) * velocity(at, lanes); });
}

template <class T>
void sgd(const SgdTask<T>& a, ptrdiff_t begin, ptrdiff_t end) {
  constexpr ptrdiff_t chunk = 512;
  for (; begin < end; begin += chunk) sgd_chunk(a, begin, end - begin < chunk ? end : begin + chunk);
}

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = shrink w - rate m / (sqrt(v) / correction + eps)
template <class T>
void adam(const AdamTask<T>& task, ptrdiff_t begin, ptrdiff_t end) {
  const AdamTask<T> a = task;
  each_vector<T>(begin, end, [&](ptrdiff_t at, int lanes) {
    const vec<T> w = load_first(a.weight + at, lanes);
    const vec<T> g = decayed(load_first(a.grad + at, lanes), a.weight + at, lanes, a.decay);
    const vec<T> m = load_first(a.mean + at, lanes) * broadcast(a.first) + g * broadcast(a.rest_first);
    const vec<T> v = load_first(a.square + at, lanes) * broadcast(a.second) + g * g * broadcast(a.rest_second);
    store_first(a.mean + at, m, lanes);
    store_first(a.square + at, v, lanes);
    const vec<T> step = m / (sqrt(v) / broadcast(a.correction) + broadcast(a.eps)) * broadcast(a.rate);
    store_first(a.weight + at, w * broadcast(a.shrink) - step, lanes);
  });
}

// Elements [begin, end) times the factor.
template <class T>
void scale(T* values, T factor, ptrdiff_t begin, ptrdiff_t end) {
  each_vector<T>(begin, end, [&](ptrdiff_t at, int lanes) {
    store_first(values + at, load_first(values + at, lanes) * broadcast(factor), lanes);
  });
}

// Of the elements, in float64, by sums that need not wait for each other, and are as many on every ISA. (The compiler
// makes vectors of them.)
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
