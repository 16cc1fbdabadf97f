#include "python/results.h"

#include <memory>

#include "network/memory.h"

namespace fastrnn {
namespace {

constexpr size_t kLarge = size_t(1) << 16;  // bytes; below, a fresh array costs less than asking for a used one
constexpr size_t kMega = size_t(1) << 20;

// Never deleted: arrays may outlive everything else.
BlockPool& results() {
  static BlockPool* const kept = new BlockPool(16, 64 * kMega);
  return *kept;
}
BlockPool& tapes() {
  static BlockPool* const kept = new BlockPool(16, 256 * kMega);
  return *kept;
}

// A block of a pool that goes back there with the last array on it, and its owner.
template <BlockPool& (*From)()>
py::capsule lent(size_t bytes, char*& data) {
  auto block = std::make_unique<Block>(From().take(bytes));
  data = block->data();
  py::capsule owner(block.get(), [](void* p) {
    const std::unique_ptr<Block> gone(static_cast<Block*>(p));
    From().give(std::move(*gone));
  });
  block.release();
  return owner;
}

}  // namespace

template <class T>
py::object result_array(const ArrayShape& shape, T*& data) {
  size_t bytes = sizeof(T);
  for (int axis = 0; axis < shape.dims; ++axis) bytes *= size_t(shape.size[axis]);
  if (bytes < kLarge) return fresh_array(shape, data);
  char* memory;
  const py::capsule owner = lent<results>(bytes, memory);
  data = reinterpret_cast<T*>(memory);
  return py::array_t<T>(std::vector<ssize_t>(shape.size, shape.size + shape.dims), data, owner);
}

void age_results() { results().pass_by(); }

template <class T>
py::object tape_array(size_t n) {
  char* memory;
  const py::capsule owner = lent<tapes>(n * sizeof(T), memory);
  return py::array_t<T>(ssize_t(n), reinterpret_cast<T*>(memory), owner);
}

template py::object result_array(const ArrayShape&, float*&);
template py::object result_array(const ArrayShape&, double*&);
template py::object tape_array<float>(size_t);
template py::object tape_array<double>(size_t);

}  // namespace fastrnn
