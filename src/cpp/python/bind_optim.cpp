// Optimizers' steps, and the norm of gradients: of all weights in one call.
#include <algorithm>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "python/arrays.h"
#include "python/bind.h"
#include "python/checks.h"
#include "python/method.h"
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

// Tasks of arrays of either type, one behind the other: threads share all of their elements. Without the GIL, so that
// the arrays are held: the list that they came in may change.
template <template <class> class Task>
class Tasks {
 public:
  template <class T>
  void add(ptrdiff_t size, const Task<T>& task) {
    parts_.push_back({size, task});
    size_ += size;
  }
  void keep(py::object held) { held_.push_back(std::move(held)); }
  // step(task, begin, end) for elements of each.
  template <class Step>
  void run(int threads, Step step) const {
    in_parts(size_, threads, [&](ptrdiff_t begin, ptrdiff_t end) {
      ptrdiff_t before = 0;
      for (const Part& part : parts_) {
        const ptrdiff_t from = std::max<ptrdiff_t>(begin - before, 0), to = std::min(end - before, part.size);
        if (from < to) std::visit([&](const auto& task) { step(task, from, to); }, part.task);
        before += part.size;
      }
    });
  }

 private:
  struct Part {
    ptrdiff_t size;
    std::variant<Task<float>, Task<double>> task;
  };
  std::vector<Part> parts_;
  std::vector<py::object> held_;
  ptrdiff_t size_ = 0;
};

// Where the n values of a C-contiguous array of any shape lie.
template <class T>
const T* values_of(py::handle object, const char* name, ssize_t n) {
  need_array(object, name);
  const py::array a = as_array<T>(object, name);
  if (a.size() != n) bad_shape(name, "of " + std::to_string(n) + " values", a);
  need_dense(name, a);
  return static_cast<const T*>(a.data());
}
template <class T>
T* writable_values(py::handle object, const char* name, ssize_t n) {
  const T* const data = values_of<T>(object, name, n);
  need_writable(name, py::reinterpret_borrow<py::array>(object));
  return const_cast<T*>(data);
}

py::array array_given(py::handle given, const char* name) {
  if (!py::isinstance<py::array>(given)) refuse_type(std::string(name) + ": expected an array", given);
  return py::reinterpret_borrow<py::array>(given);
}

// visit(weight, n, grad, memory, first) for each of `changes`, a tuple (weight, grad, memory, first): the memory is
// a list of arrays, which have no values yet at the first step.
template <class Tasks, class Visit>
void each_change(Tasks& tasks, const py::list& changes, Visit visit) {
  for (const py::handle given : changes) {
    const py::tuple change = tuple_of(given, "change", 4);
    const py::array weight = array_given(py::object(change[0]), "weight");
    const py::object grad = change[1];
    const py::tuple memory = sequence_of(change[2], "memory");
    tasks.keep(change), tasks.keep(memory);
    with_type(weight, [&](auto zero) {
      using T = decltype(zero);
      const ssize_t n = weight.size();
      visit(writable_values<T>(weight, "weight", n), n, values_of<T>(grad, "grad", n), memory, change[3].cast<bool>());
    });
  }
}

void sgd_step(const py::list& changes, double rate, double momentum, double dampening, double decay, bool nesterov,
              int threads) {
  Tasks<SgdTask> tasks;
  each_change(tasks, changes, [&](auto* weight, ssize_t n, const auto* grad, const py::tuple& memory, bool first) {
    using T = std::remove_pointer_t<decltype(weight)>;
    SgdTask<T> task = {};
    task.weight = weight, task.grad = grad;
    if (momentum != 0) task.velocity = writable_values<T>(memory[0], "velocity", n);
    task.rate = T(rate), task.momentum = T(momentum), task.undamped = T(1 - dampening), task.decay = T(decay);
    task.nesterov = nesterov, task.first = first;
    tasks.add(n, task);
  });
  const Backend& backend = current_backend();
  tasks.run(threads, [&](const auto& task, ptrdiff_t begin, ptrdiff_t end) {
    kernels_of<std::remove_pointer_t<decltype(task.weight)>>(backend).sgd(task, begin, end);
  });
}

void adam_step(const py::list& changes, double first, double second, double correction, double eps, double rate,
               double decay, double shrink, int threads) {
  Tasks<AdamTask> tasks;
  each_change(tasks, changes, [&](auto* weight, ssize_t n, const auto* grad, const py::tuple& memory, bool) {
    using T = std::remove_pointer_t<decltype(weight)>;
    AdamTask<T> task = {};
    task.weight = weight, task.grad = grad;
    task.mean = writable_values<T>(memory[0], "mean", n), task.square = writable_values<T>(memory[1], "square", n);
    task.first = T(first), task.rest_first = T(1 - first), task.second = T(second), task.rest_second = T(1 - second);
    task.correction = T(correction), task.eps = T(eps), task.rate = T(rate);
    task.decay = T(decay), task.shrink = T(shrink);
    tasks.add(n, task);
  });
  const Backend& backend = current_backend();
  tasks.run(threads, [&](const auto& task, ptrdiff_t begin, ptrdiff_t end) {
    kernels_of<std::remove_pointer_t<decltype(task.weight)>>(backend).adam(task, begin, end);
  });
}

// Of one array, in blocks, so that the threads make no difference.
template <class T>
struct SquaresTask {
  const T* values;
  ptrdiff_t size, first_block;  // its place among the blocks of all arrays
};
constexpr ptrdiff_t kSquaresBlock = kWorthAnotherThread;
ptrdiff_t blocks_of(ptrdiff_t size) { return (size + kSquaresBlock - 1) / kSquaresBlock; }

double sum_of_squares(const py::list& arrays, int threads) {
  Tasks<SquaresTask> tasks;
  std::vector<ptrdiff_t> ends;  // of each array's blocks
  for (const py::handle given : arrays) {
    const py::array values = array_given(given, "values");
    const ptrdiff_t first = ends.empty() ? 0 : ends.back();
    with_type(values, [&](auto zero) {
      using T = decltype(zero);
      tasks.add(values.size(), SquaresTask<T>{values_of<T>(values, "values", values.size()), values.size(), first});
    });
    ends.push_back(first + blocks_of(values.size()));
    tasks.keep(values);
  }
  std::vector<double> sums(size_t(ends.empty() ? 0 : ends.back()));
  const Backend& backend = current_backend();
  tasks.run(threads, [&](const auto& task, ptrdiff_t begin, ptrdiff_t end) {  // blocks that begin there
    const auto sum =
        kernels_of<std::remove_const_t<std::remove_pointer_t<decltype(task.values)>>>(backend).sum_of_squares;
    for (ptrdiff_t b = blocks_of(begin); b < blocks_of(end); ++b) {
      const ptrdiff_t from = b * kSquaresBlock;
      sums[size_t(task.first_block + b)] = sum(task.values + from, std::min(kSquaresBlock, task.size - from));
    }
  });
  double total = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    total += std::accumulate(sums.begin() + (i ? ends[i - 1] : 0), sums.begin() + ends[i], 0.0);
  }
  return total;
}

// Whether no two of these ranges of bytes have one in common.
bool lie_apart(std::vector<std::pair<const char*, const char*>> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) return false;
  }
  return true;
}

template <class T>
struct ScaleTask {
  T *values, factor;
};

// Multiplies arrays in place; false, and nothing is done, where one has gaps or two share memory.
bool scale(const py::list& arrays, double factor, int threads) {
  Tasks<ScaleTask> tasks;
  std::vector<std::pair<const char*, const char*>> ranges;
  for (const py::handle given : arrays) {
    const py::array values = array_given(given, "values");
    if (!(values.flags() & py::array::c_style) || !aligned(values)) return false;
    const auto* const begin = static_cast<const char*>(values.data());
    ranges.emplace_back(begin, begin + values.nbytes());
    with_type(values, [&](auto zero) {
      using T = decltype(zero);
      const ssize_t n = values.size();
      tasks.add(n, ScaleTask<T>{writable_values<T>(values, "values", n), T(factor)});
    });
    tasks.keep(values);
  }
  if (!lie_apart(std::move(ranges))) return false;
  const Backend& backend = current_backend();
  tasks.run(threads, [&](const auto& task, ptrdiff_t begin, ptrdiff_t end) {
    kernels_of<std::remove_pointer_t<decltype(task.values)>>(backend).scale(task.values, task.factor, begin, end);
  });
  return true;
}

}  // namespace

void bind_optim(py::module_& m) {
  m.def("sgd", &sgd_step);
  m.def("adam", &adam_step);
  m.def("sum_of_squares", &sum_of_squares);
  m.def("scale", &scale);
}

}  // namespace fastrnn
