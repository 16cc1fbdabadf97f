// Optimizers' steps on flat arrays, and the norm of gradients.
#include <algorithm>
#include <numeric>
#include <vector>

#include "python/arrays.h"
#include "python/bind.h"
#include "python/checks.h"
#include "python/unlocked.h"
#include "registry.h"
#include "system/kernel_mode.h"
#include "threads/threads.h"

namespace fastrnn {
namespace {

// Elements that are worth a thread of their own: a region costs 1 to 5 us, and Adam takes some 30 for so many.
constexpr ptrdiff_t kWorthAnotherThread = ptrdiff_t(1) << 15;

// part(begin, end) of n elements, by several threads if there are many.
template <class Part>
void in_parts(ptrdiff_t n, int threads, Part part) {
  const int workers = int(std::clamp<ptrdiff_t>(n / kWorthAnotherThread, 1, threads_of(threads)));
  const Unlocked unlocked;
  parallel(workers, [&](const Team& team) {
    const OptimizerMode mode;
    const Range mine = part_of(n, team.rank, team.size);
    part(mine.begin, mine.end);
  });
}

void sgd_step(const py::array& weight, py::object grad, py::object velocity, double rate, double momentum,
              double dampening, double decay, bool nesterov, bool first, int threads) {
  with_type(weight, [&](auto zero) {
    using T = decltype(zero);
    const ssize_t n = weight.size();
    SgdTask<T> task = {};
    task.weight = writable<T>(weight, "weight", {n}), task.grad = contiguous<T>(grad, "grad", {n});
    task.velocity = writable<T>(velocity, "velocity", {n});
    need_array(grad, "grad");
    task.rate = T(rate), task.momentum = T(momentum), task.undamped = T(1 - dampening), task.decay = T(decay);
    task.nesterov = nesterov, task.first = first;
    const auto step = kernels_of<T>(current_backend()).sgd;
    in_parts(n, threads, [&](ptrdiff_t begin, ptrdiff_t end) { step(task, begin, end); });
  });
}

void adam_step(const py::array& weight, py::object grad, py::object mean, py::object square, double first,
               double second, double correction, double eps, double rate, double decay, double shrink, int threads) {
  with_type(weight, [&](auto zero) {
    using T = decltype(zero);
    const ssize_t n = weight.size();
    AdamTask<T> task = {};
    task.weight = writable<T>(weight, "weight", {n}), task.grad = contiguous<T>(grad, "grad", {n});
    task.mean = writable<T>(mean, "mean", {n}), task.square = writable<T>(square, "square", {n});
    need_array(grad, "grad"), need_array(mean, "mean"), need_array(square, "square");
    task.first = T(first), task.rest_first = T(1 - first), task.second = T(second), task.rest_second = T(1 - second);
    task.correction = T(correction), task.eps = T(eps), task.rate = T(rate);
    task.decay = T(decay), task.shrink = T(shrink);
    const auto step = kernels_of<T>(current_backend()).adam;
    in_parts(n, threads, [&](ptrdiff_t begin, ptrdiff_t end) { step(task, begin, end); });
  });
}

// In blocks, so that the threads make no difference.
double all_squares(const py::array& values, int threads) {
  return with_type(values, [&](auto zero) {
    using T = decltype(zero);
    const ssize_t n = values.size();
    const T* const data = contiguous<T>(values, "values", {n});
    const auto sum_of_squares = kernels_of<T>(current_backend()).sum_of_squares;
    std::vector<double> sums(size_t(n / kWorthAnotherThread + 1));
    in_parts(ptrdiff_t(sums.size()) * kWorthAnotherThread, threads, [&](ptrdiff_t begin, ptrdiff_t end) {
      const ptrdiff_t last = (end + kWorthAnotherThread - 1) / kWorthAnotherThread;
      for (ptrdiff_t b = (begin + kWorthAnotherThread - 1) / kWorthAnotherThread; b < last; ++b) {
        const ptrdiff_t from = b * kWorthAnotherThread;
        sums[size_t(b)] = sum_of_squares(data + from, std::min<ptrdiff_t>(kWorthAnotherThread, n - from));
      }
    });
    return std::accumulate(sums.begin(), sums.end(), 0.0);
  });
}

}  // namespace

void bind_optim(py::module_& m) {
  m.def("sgd", &sgd_step);
  m.def("adam", &adam_step);
  m.def("sum_of_squares", &all_squares);
}

}  // namespace fastrnn
