#include "python/results.h"

#include <memory>

#include "network/memory.h"

namespace fastrnn {
namespace {

constexpr size_t kLarge = size_t(1) << 16;  // bytes; below, a fresh array costs less than asking for a used one
constexpr size_t kKept = size_t(64) << 20;  // at most, in 16 blocks

// Never deleted: arrays may outlive everything else.
Pool& pool() {
  static Pool* const kept = new Pool(16, kKept);
  return *kept;
}

}  // namespace

template <class T>
py::object result_array(const ArrayShape& shape, T*& data) {
  size_t bytes = sizeof(T);
  for (int axis = 0; axis < shape.dims; ++axis) bytes *= size_t(shape.size[axis]);
  if (bytes < kLarge) return fresh_array(shape, data);
  auto block = std::make_unique<Block>(pool().take(bytes));
  data = reinterpret_cast<T*>(block->data());
  const py::capsule owner(block.get(), [](void* p) {
    const std::unique_ptr<Block> gone(static_cast<Block*>(p));
    pool().give(std::move(*gone));
  });
  block.release();
  return py::array_t<T>(std::vector<ssize_t>(shape.size, shape.size + shape.dims), data, owner);
}

template py::object result_array(const ArrayShape&, float*&);
template py::object result_array(const ArrayShape&, double*&);

}  // namespace fastrnn
