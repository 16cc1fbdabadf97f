// Compiled with -ffast-math before the library's own options: none of what that would change has changed.
#include <limits>

#include "tests/check.h"

int fastrnn::tests::failures = 0;

#if defined(__FAST_MATH__) || __FINITE_MATH_ONLY__
#error "-ffast-math is on"
#endif

namespace {

volatile double big = 1e30, one = 1, minus_zero = -0.0, infinity = std::numeric_limits<double>::infinity();

// With -ffast-math these give a, false and a.
double back(double a, double b) { return (a + b) - b; }
bool is_nan(double a) { return a != a; }
double plus_zero(double a) { return a + 0.0; }

// With -ffast-math some of 64: they are products with 1 / d.
int wrong_quotients(double d) {
  double quotients[64];
  for (int i = 0; i < 64; ++i) quotients[i] = (i + 1) / d;
  int wrong = 0;
  for (int i = 0; i < 64; ++i) {
    const volatile double n = i + 1, divisor = d;
    wrong += quotients[i] != n / divisor;
  }
  return wrong;
}

}  // namespace

int main() {
  CHECK(back(one, big) == 0, "sums were reordered");
  CHECK(is_nan(infinity - infinity), "NaN is taken for impossible");
  CHECK(1 / plus_zero(minus_zero) > 0, "the signs of zeros are not kept");
  CHECK(wrong_quotients(3 * one) == 0, "quotients are products");
  return fastrnn::tests::failures != 0;
}
