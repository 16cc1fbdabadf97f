// Methods by CPython's own calling convention, for what is called once a sample. pybind11's takes 60 ns more a call and
// 280 with a keyword, has no signature that Python's `inspect` reads, and answers a wrong keyword with a dump of every
// array it was given.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <new>
#include <stdexcept>
#include <string>

#include "python/refuse.h"

namespace fastrnn {

namespace py = pybind11;

template <size_t N>
using Arguments = std::array<py::handle, N>;

// A method's name and the names of its arguments; those from `required` on may be left out, and are None then.
template <size_t N>
struct Signature {
  const char* name;
  std::array<const char*, N> names;
  size_t required;

  std::string list() const {
    std::string text;
    for (size_t i = 0; i < N; ++i) text += (i ? ", " : "") + std::string(names[i]) + (i < required ? "" : "=None");
    return text;
  }
  [[noreturn]] void refuse(const std::string& got) const {
    throw py::type_error(std::string(name) + ": expected (" + list() + "), got " + got);
  }
  size_t place_of(PyObject* argument) const {
    size_t i = 0;
    while (i < N && PyUnicode_CompareWithASCIIString(argument, names[i]) != 0) ++i;
    return i;
  }
  // `given`: `count` by position, then those of the tuple `keywords`, which may be null.
  Arguments<N> parse(PyObject* const* given, size_t count, PyObject* keywords) const {
    if (count > N) refuse(std::to_string(count) + " arguments");
    Arguments<N> found;
    for (size_t i = 0; i < count; ++i) found[i] = given[i];
    const size_t named = keywords ? size_t(PyTuple_GET_SIZE(keywords)) : 0;
    for (size_t k = 0; k < named; ++k) {
      PyObject* const argument = PyTuple_GET_ITEM(keywords, ssize_t(k));
      const size_t i = place_of(argument);
      if (i == N) refuse("an unexpected argument " + std::string(py::repr(argument)));
      if (found[i]) refuse("argument '" + std::string(names[i]) + "' twice");
      found[i] = given[count + k];
    }
    for (size_t i = 0; i < N; ++i) {
      if (found[i]) continue;
      if (i < required) refuse("no argument '" + std::string(names[i]) + "'");
      found[i] = Py_None;
    }
    return found;
  }
};

// What pybind11 keeps in one of its objects. Its own cast is for objects of several C++ classes, and for those that
// were never initialised, which it gives memory.
template <class Any>
Any& object_of(PyObject* self) {
  const auto* const instance = reinterpret_cast<const py::detail::instance*>(self);
  void* const value = instance->simple_layout ? instance->simple_value_holder[0] : nullptr;
  return value ? *static_cast<Any*>(value) : py::cast<Any&>(py::handle(self));
}

inline py::sequence sequence_of(py::handle object, const char* name) {
  if (!py::isinstance<py::sequence>(object)) refuse_type(std::string(name) + ": expected a tuple or a list", object);
  return py::reinterpret_borrow<py::sequence>(object);
}

inline py::tuple tuple_of(py::handle object, const char* name, size_t size) {
  if (!py::isinstance<py::tuple>(object)) refuse_type(std::string(name) + ": expected a tuple", object);
  auto tuple = py::reinterpret_borrow<py::tuple>(object);
  if (tuple.size() == size) return tuple;
  throw py::value_error(std::string(name) + ": expected " + std::to_string(size) + " values, got " +
                        std::to_string(tuple.size()));
}

// One of ours, or null for None. pybind11's cast looks for the class at each call, for None too: 0.8 us.
template <class Any>
const Any* given_object(py::handle object, const char* name, const char* wanted) {
  static const auto* const made = reinterpret_cast<PyTypeObject*>(py::type::of<Any>().ptr());
  if (object.is_none()) return nullptr;
  if (Py_TYPE(object.ptr()) != made) refuse_type(std::string(name) + ": expected " + wanted, object);
  return &object_of<Any>(object.ptr());
}

// The present exception, as pybind11 hands it to Python from its own methods: of the standard ones those that the core
// and the containers throw.
inline void hand_over_exception() {
  try {
    throw;
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::cast_error& error) {  // pybind11 says RuntimeError, where its own methods say TypeError
    PyErr_SetString(PyExc_TypeError, error.what());
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::length_error& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

template <class Any, const auto& signature, auto call>
PyObject* entry(PyObject* self, PyObject* const* given, ssize_t count, PyObject* keywords) {
  try {
    return call(object_of<Any>(self), signature.parse(given, size_t(count), keywords)).release().ptr();
  } catch (const std::exception&) {
    hand_over_exception();
    return nullptr;
  }
}

// Gives a class of pybind11's the method that runs call(object, arguments).
template <class Any, const auto& signature, auto call>
void define_method(const py::object& owner, const char* doc) {
  static const std::string text =
      std::string(signature.name) + "($self, /, " + signature.list() + ")\n--\n\n" + doc;  // as CPython reads it
  static PyMethodDef method = {
      signature.name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&entry<Any, signature, call>)),
      METH_FASTCALL | METH_KEYWORDS, text.c_str()};
  auto* const type = reinterpret_cast<PyTypeObject*>(owner.ptr());
  const auto made = py::reinterpret_steal<py::object>(PyDescr_NewMethod(type, &method));
  if (!made) throw py::error_already_set();
  py::setattr(owner, signature.name, made);
}

}  // namespace fastrnn
