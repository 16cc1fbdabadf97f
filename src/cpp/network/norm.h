// The length of a gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace fastrnn {

// The power of two that a number is multiplied by before it is squared. The square of a float32 is no problem for
// float64; one of float64 that has all but vanished, or nearly overflows, would be taken for 0 or for infinity.
inline int exponent_of(float) { return 0; }
inline int exponent_of(double largest) {
  return largest > 0 && std::isfinite(largest) ? std::clamp(std::ilogb(largest), -1000, 1000) : 0;
}

// The 2-norm of `n` elements of each of these gates, `pitch` apart, summed in float64, in an order that is no
// compiler's choice.
template <class T>
double norm(const T* row, int pitch, const int* gates, int count, int n) {
  const auto each = [&](auto visit) {
    for (int g = 0; g < count; ++g) {
      for (int j = 0; j < n; ++j) visit(j, row[ptrdiff_t(gates[g]) * pitch + j]);
    }
  };
  T largest = 0;
  if (sizeof(T) == sizeof(double)) each([&](int, T v) { largest = std::max(largest, std::abs(v)); });
  const int exponent = exponent_of(largest);
  const double scale = std::ldexp(1.0, -exponent);
  constexpr int kSums = 8;  // which need not wait for each other
  double sums[kSums] = {};
  each([&](int j, double v) { sums[j % kSums] += (v * scale) * (v * scale); });
  double sum = 0;
  for (const double s : sums) sum += s;
  return std::ldexp(std::sqrt(sum), exponent);
}

}  // namespace fastrnn
