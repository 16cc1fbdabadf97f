// Tensors of PyTorch without its headers: read by the table of functions that torch hands out for DLPack 1.3 (55 ns for
// all there is to know; data_ptr() alone takes 100), by a tensor's attributes where torch is older than 2.10; made by
// its new_empty, but for large tapes (reserve.h).
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <string>

namespace fastrnn {

namespace py = pybind11;

// Says which class tensors have, besides torch.nn.Parameter, and whether to read them by the table, should it have
// one.
void use_tensors(const py::object& tensor_class, bool by_table);

// What a message calls an argument: "h0", "weights[3]".
struct Name {
  const char* text;
  int index = -1;

  std::string str() const { return index < 0 ? text : text + ("[" + std::to_string(index) + "]"); }
};

struct Shape {
  int dims;
  std::array<int64_t, 3> size;
};

// A strided tensor on the CPU, kept alive.
class Tensor {
 public:
  // TypeError: no tensor, or one of another class; ValueError: on another device, or without memory of its own.
  Tensor(py::object object, Name name);

  int dims() const { return dims_; }
  int64_t size(int axis) const { return (sizes_ ? sizes_ : own_.data())[axis]; }
  int64_t stride(int axis) const { return (strides_ ? strides_ : own_.data() + kMost)[axis]; }
  template <class T>
  T* data() const {
    return static_cast<T*>(data_);
  }
  const py::object& object() const { return object_; }

  enum class Kind : uint8_t { integer = 0, floating = 2, other = 255 };  // numbers of DLPack
  bool is(Kind kind, int bits) const { return kind_ == kind && bits_ == bits; }
  int bits() const { return bits_; }
  bool has(const Shape& shape) const;
  bool contiguous() const;
  // Itself, or a copy without gaps; dense_rows: gaps between features alone are none of the core's, unless it asks.
  Tensor dense(Name name) const;
  Tensor dense_rows(Name name, bool whole) const;

  // Uninitialised memory of the same dtype.
  Tensor fresh(const Shape& shape) const;

  std::string dtype_text() const;
  std::string shape_text() const;

 private:
  static constexpr int kMost = 4;  // axes that are looked at
  bool empty() const;
  void read(Name name);
  void read_table(Name name);
  void read_attributes(Name name);

  py::object object_;
  void* data_ = nullptr;
  int dims_ = 0, bits_ = 0;
  Kind kind_ = Kind::other;
  const int64_t *sizes_ = nullptr, *strides_ = nullptr;  // the tensor's own; null: they are here
  std::array<int64_t, 2 * kMost> own_ = {};
};

// What a caller gave, a torch.Tensor or Parameter (TypeError: another subclass); where its memory holds the negatives
// of its values (a view that torch made of a conjugate), a copy.
Tensor tensor_of(py::handle object, Name name);

// A tensor that lies in an array.
Tensor tensor_in(py::object array);

// Refuses a tensor of another dtype (TypeError) or shape (ValueError).
template <class T>
void check(const Tensor& t, Name name, const Shape& shape);

}  // namespace fastrnn
