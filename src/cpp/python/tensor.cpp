#include "python/tensor.h"

#include "file/text.h"
#include "python/refuse.h"

namespace fastrnn {
namespace {

// The two structs of DLPack 1.3 that are needed, as its specification lays them out.
struct DLTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;  // [ndim], in elements
  uint64_t byte_offset;
};

struct ExchangeTable {
  uint32_t major, minor;
  const ExchangeTable* previous;
  void *allocate, *managed_from_object, *managed_to_object;
  int (*from_object)(void* object, DLTensor* out);  // borrows; 0, or -1 and a Python error
  void* current_stream;
};

constexpr int32_t kCpu = 1;  // kDLCPU

PyTypeObject *tensor_type = nullptr, *parameter_type = nullptr;
const ExchangeTable* table = nullptr;

const ExchangeTable* table_of(const py::object& tensor_class) {
  if (!py::hasattr(tensor_class, "__dlpack_c_exchange_api__")) return nullptr;
  const py::object capsule = tensor_class.attr("__dlpack_c_exchange_api__");
  const auto* found = static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!found) throw py::error_already_set();
  while (found && found->major != 1) found = found->previous;
  return found && found->from_object ? found : nullptr;
}

PyObject* interned(const char* name) {
  PyObject* const text = PyUnicode_InternFromString(name);
  if (!text) throw py::error_already_set();
  return text;
}

py::object call_method(PyObject* method, PyObject* const* arguments, size_t count) {
  auto result = py::reinterpret_steal<py::object>(PyObject_VectorcallMethod(method, arguments, count, nullptr));
  if (!result) throw py::error_already_set();
  return result;
}

// A subclass may want to see what is done with it, or keep its values elsewhere.
void refuse_subclass(py::handle object, Name name) {
  const PyTypeObject* const type = Py_TYPE(object.ptr());
  if (type == tensor_type || type == parameter_type) return;
  throw py::type_error(name.str() + ": expected a torch.Tensor, got its subclass " + type_name(object));
}

[[noreturn]] void refuse_place(const py::object& tensor, Name name) {
  throw py::value_error(name.str() + ": expected a strided tensor of the CPU, got " +
                        std::string(py::str(tensor.attr("layout"))) + " on " +
                        std::string(py::str(tensor.attr("device"))));
}

}  // namespace

void use_tensors(const py::object& tensor_class, bool by_table) {
  if (!PyType_Check(tensor_class.ptr())) refuse_type("tensor_class: expected a class", tensor_class);
  const ExchangeTable* const found = by_table ? table_of(tensor_class) : nullptr;
  const py::object parameter_class = py::module_::import("torch.nn").attr("Parameter");
  tensor_type = reinterpret_cast<PyTypeObject*>(tensor_class.inc_ref().ptr());  // for ever
  parameter_type = reinterpret_cast<PyTypeObject*>(parameter_class.inc_ref().ptr());
  table = found;
}

Tensor::Tensor(py::object object, Name name) : object_(std::move(object)) {
  if (!tensor_type || !PyObject_TypeCheck(object_.ptr(), tensor_type)) {
    refuse_type(name.str() + ": expected a torch.Tensor", object_);
  }
  refuse_subclass(object_, name);
  read(name);
  if (data_ || empty()) return;
  if (!object_.attr("_is_zerotensor")().cast<bool>()) {
    throw py::value_error(name.str() + ": expected a tensor with memory of its own, got one without");
  }
  object_ = object_.attr("clone")();  // zeros that torch has not written down yet
  read(name);
}

void Tensor::read(Name name) { table ? read_table(name) : read_attributes(name); }

bool Tensor::empty() const {
  for (int i = 0; i < dims_ && i < kMost; ++i) {
    if (size(i) == 0) return true;
  }
  return false;
}

void Tensor::read_table(Name name) {
  DLTensor t;
  if (table->from_object(object_.ptr(), &t) != 0) {
    PyErr_Clear();
    t.device_type = 0;
  }
  if (t.device_type != kCpu) refuse_place(object_, name);
  data_ = t.data ? static_cast<char*>(t.data) + t.byte_offset : nullptr;
  dims_ = t.ndim, bits_ = t.bits, kind_ = Kind(t.code);
  sizes_ = t.shape, strides_ = t.strides;
}

void Tensor::read_attributes(Name name) {
  if (!object_.attr("is_cpu").cast<bool>() || std::string(py::str(object_.attr("layout"))) != "torch.strided") {
    refuse_place(object_, name);
  }
  const py::tuple sizes = object_.attr("shape"), strides = object_.attr("stride")();
  dims_ = int(sizes.size());
  for (int i = 0; i < dims_ && i < kMost; ++i) {
    own_[size_t(i)] = sizes[size_t(i)].cast<int64_t>();
    own_[size_t(kMost + i)] = strides[size_t(i)].cast<int64_t>();
  }
  const bool floating = object_.attr("dtype").attr("is_floating_point").cast<bool>();
  kind_ = floating ? Kind::floating : dtype_text() == "torch.int64" ? Kind::integer : Kind::other;
  bits_ = 8 * object_.attr("element_size")().cast<int>();
  data_ = reinterpret_cast<void*>(object_.attr("data_ptr")().cast<uintptr_t>());
}

bool Tensor::has(const Shape& shape) const {
  if (dims_ != shape.dims) return false;
  for (int i = 0; i < dims_; ++i) {
    if (size(i) != shape.size[size_t(i)]) return false;
  }
  return true;
}

bool Tensor::contiguous() const {
  int64_t expected = 1;
  for (int i = dims_ - 1; i >= 0; --i) {
    if (size(i) == 0) return true;
    if (size(i) != 1 && stride(i) != expected) return false;
    expected *= size(i);
  }
  return true;
}

Tensor Tensor::dense(Name name) const {
  if (contiguous()) return *this;
  return Tensor(object_.attr("contiguous")(), name);
}

Tensor Tensor::dense_rows(Name name, bool whole) const {
  const bool readable = stride(dims_ - 1) == 1 || size(dims_ - 1) == 1;
  return readable && !whole ? *this : dense(name);
}

Tensor Tensor::fresh(const Shape& shape) const {
  static PyObject* const new_empty = interned("new_empty");
  py::object sizes[3];
  PyObject* arguments[4] = {object_.ptr()};
  for (int i = 0; i < shape.dims; ++i) {
    sizes[i] = py::int_(shape.size[size_t(i)]);
    arguments[i + 1] = sizes[i].ptr();
  }
  return Tensor(call_method(new_empty, arguments, size_t(shape.dims) + 1), {"result"});
}

std::string Tensor::dtype_text() const { return py::str(object_.attr("dtype")); }

std::string Tensor::shape_text() const { return py::str(py::list(object_.attr("shape"))); }

// is_neg takes 50 ns a tensor: neither the table nor the strides tell (an axis of size 1 may have any).
Tensor tensor_of(py::handle object, Name name) {
  static PyObject* const is_neg = interned("is_neg");
  Tensor tensor(py::reinterpret_borrow<py::object>(object), name);
  PyObject* const self = object.ptr();
  if (!call_method(is_neg, &self, 1).is(py::handle(Py_True))) return tensor;
  return Tensor(tensor.object().attr("resolve_neg")(), name);
}

Tensor tensor_in(py::object array) {
  return Tensor(py::module_::import("torch").attr("from_dlpack")(std::move(array)), {"result"});
}

template <class T>
void check(const Tensor& t, Name name, const Shape& shape) {
  constexpr bool integer = T(0.5) == T(0);
  if (!t.is(integer ? Tensor::Kind::integer : Tensor::Kind::floating, 8 * sizeof(T))) {
    const char* const wanted = integer ? "torch.int64" : sizeof(T) == 4 ? "torch.float32" : "torch.float64";
    throw py::type_error(name.str() + ": expected dtype " + wanted + ", got " + t.dtype_text());
  }
  if (!t.has(shape)) {
    throw py::value_error(name.str() + ": expected shape " + shape_text(shape.size.data(), size_t(shape.dims)) +
                          ", got " + t.shape_text());
  }
}

template void check<float>(const Tensor&, Name, const Shape&);
template void check<double>(const Tensor&, Name, const Shape&);
template void check<int64_t>(const Tensor&, Name, const Shape&);

}  // namespace fastrnn
