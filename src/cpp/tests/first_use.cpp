// The first calls of a process, which find the figures of the machine, under a program that traps floating-point
// exceptions: none is raised, and no flag is left.
#include <cfenv>

#include "tests/api_check.h"

int fastrnn::tests::failures = 0;

int main() {
  using namespace fastrnn::tests;
  constexpr int traps = FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW;
  const fastrnn::Config config = fastrnn::tests::config_of(fastrnn::Cell::lstm, 16, 64);
  const auto x = draw<float>(20 * 8 * 16, 1);
  std::vector<float> y(20 * 8 * 64);
  std::feclearexcept(FE_ALL_EXCEPT);
#if defined(__GLIBC__)
  feenableexcept(traps);
#endif
  const fastrnn::Layer<float> layer = ready_layer<float>(config);
  fastrnn::Sequence s = fastrnn::sequence();
  s.steps = 20, s.batch = 8, s.threads = 2;
  s.x = x.data(), s.x_step = 8 * 16, s.x_row = 16, s.y = y.data(), s.y_step = 8 * 64, s.y_row = 64;
  required(layer.run(s));
  required(required(layer.stream()).step(x.data(), y.data()));
  CHECK(fastrnn::available_threads() >= 1, "no thread");
  CHECK(std::fetestexcept(traps) == 0, "the flags %d", std::fetestexcept(traps));
  return failures != 0;
}
