#include "python/results.h"

#include <cstdio>
#include <limits>
#include <memory>
#include <new>

#include "python/arrays.h"
#include "system/memory.h"

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
BlockPool& gradients() {
  static BlockPool* const kept = new BlockPool(64, 256 * kMega);
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

// Bytes of an array, the largest size_t for more: an input without strides may be longer than any memory.
size_t bytes_of(const ArrayShape& shape, size_t element) {
  constexpr size_t most = std::numeric_limits<size_t>::max();
  size_t bytes = element;
  bool fits = true;
  for (int axis = 0; axis < shape.dims; ++axis) {
    const auto size = size_t(shape.size[axis]);
    if (size == 0) return 0;
    fits = fits && bytes <= most / size;
    bytes = fits ? bytes * size : most;
  }
  return bytes;
}

template <class T>
[[noreturn]] void no_memory(const ArrayShape& shape) {
  double bytes = sizeof(T);
  for (int axis = 0; axis < shape.dims; ++axis) bytes *= double(shape.size[axis]);
  char text[200];
  std::snprintf(text, sizeof text, "out of memory: expected %.0f bytes for a result of shape %s, %s", bytes,
                shape_text(shape.size, size_t(shape.dims)).c_str(), dtype_name<T>());
  PyErr_SetString(PyExc_MemoryError, text);
  throw py::error_already_set();
}

// An array on a block of a pool, and where it lies.
template <BlockPool& (*From)(), class T>
py::object array_of(const ArrayShape& shape, size_t bytes, T*& data) {
  char* memory;
  py::capsule owner;
  try {
    owner = lent<From>(bytes, memory);
  } catch (const std::bad_alloc&) {
    no_memory<T>(shape);
  }
  data = reinterpret_cast<T*>(memory);
  return py::array_t<T>(std::vector<ssize_t>(shape.size, shape.size + shape.dims), data, owner);
}

}  // namespace

template <class T>
py::object result_array(const ArrayShape& shape, T*& data) {
  const size_t bytes = bytes_of(shape, sizeof(T));
  return bytes < kLarge ? fresh_array(shape, data) : array_of<results>(shape, bytes, data);
}

void age_results() { results().pass_by(); }

template <class T>
py::object tape_array(size_t n) {
  T* data;
  return array_of<tapes>({1, {ssize_t(n)}}, n * sizeof(T), data);
}

template <class T>
py::object gradient_array(const ArrayShape& shape) {
  T* data;
  return array_of<gradients>(shape, bytes_of(shape, sizeof(T)), data);
}

template py::object result_array(const ArrayShape&, float*&);
template py::object result_array(const ArrayShape&, double*&);
template py::object tape_array<float>(size_t);
template py::object tape_array<double>(size_t);
template py::object gradient_array<float>(const ArrayShape&);
template py::object gradient_array<double>(const ArrayShape&);

}  // namespace fastrnn
