// fastrnn.StreamPool: ids, rows and states in and out; the Python class adds the layer.
#include "pool.h"

#include <pybind11/stl.h>

#include "python/bind.h"
#include "python/checks.h"
#include "python/claim.h"
#include "python/integers.h"
#include "python/method.h"
#include "python/rows.h"
#include "python/sizes.h"
#include "python/state.h"
#include "python/unlocked.h"
#include "system/limits.h"

namespace fastrnn {
namespace {

struct AnyPool : Zeroed {
  static constexpr const char* kWhat = "pool";
  std::variant<std::unique_ptr<StreamPool<float>>, std::unique_ptr<StreamPool<double>>> held;
  std::shared_ptr<AnyNetwork> network;
  double step_flops;  // of one stream
  std::atomic<bool> busy{false};
};

std::unique_ptr<AnyPool> make_pool(const std::shared_ptr<AnyNetwork>& any, int capacity, int threads) {
  check_streams(*any);
  within(threads, 1, kMaxThreads, "num_threads");
  within(capacity, 1, kMaxSize, "capacity");
  auto made = std::make_unique<AnyPool>();
  made->network = any;
  std::visit(
      [&](const auto& net) {
        made->step_flops = step_flops(net->config(), net->cell().gates);
        made->held = std::make_unique<StreamPool<element_of<decltype(net)>>>(net, capacity, threads);
      },
      any->network);
  return made;
}

const char* const kUnknownIds = "ids: expected those of streams in the pool";

// ids as int64 [n]: used where they lie when they are that already.
py::array_t<int64_t> ids_of(py::handle object) {
  if (is_plain_array(object) && py::isinstance<py::array_t<int64_t, py::array::c_style>>(object)) {
    auto same = py::reinterpret_borrow<py::array_t<int64_t>>(object);
    if (same.ndim() == 1 && aligned(same)) return same;
  }
  const py::array a = integers(object, "ids", "ids: expected integers [n]");
  if (a.dtype().kind() == 'b' && a.size() > 0) throw py::type_error("ids: expected integers [n], got dtype bool");
  if (a.ndim() != 1) bad_shape("ids", "[n]", a, a.ndim() == 0 ? "; try [id]" : "");
  return as_int64(a, kUnknownIds);
}

template <class T>
int slot_of(const StreamPool<T>& pool, int64_t id) {
  const int slot = pool.find(id);
  if (slot < 0) throw py::value_error("id: expected that of a stream in the pool, got " + std::to_string(id));
  return slot;
}

// Selects streams for the next call; refuses them all if one is not there.
template <class T>
void select(StreamPool<T>& pool, const int64_t* ids, int64_t n) {
  using Fault = typename StreamPool<T>::Fault;
  if (n > pool.capacity()) {
    throw py::value_error("ids: expected at most capacity = " + std::to_string(pool.capacity()) + ", got " +
                          std::to_string(n));
  }
  const auto [fault, at] = pool.select(ids, n);
  if (fault != Fault::none) {
    const std::string what = std::to_string(ids[at]) + " at position " + std::to_string(at);
    throw py::value_error(fault == Fault::repeated ? "ids: expected each stream once, got " + what + " again"
                                                   : std::string(kUnknownIds) + ", got " + what);
  }
}

template <class T>
int64_t select(StreamPool<T>& pool, py::handle ids) {
  const py::array_t<int64_t> given = ids_of(ids);
  select(pool, given.data(), given.shape(0));
  return given.shape(0);
}

// Nothing changes unless every argument is right: select() only remembers, and the steps come last.
template <class T>
py::object step(StreamPool<T>& pool, double flops, py::handle ids, py::handle x, py::handle out) {
  const int64_t n = select(pool, ids);
  const Config& c = pool.network().config();
  return step_rows_with<T>(n, c.input, c.output(), x, out,
                           [&](const T* in, T* y) { run_unlocked(double(n) * flops, [&] { pool.step(in, y); }); });
}

template <class T>
py::object process(StreamPool<T>& pool, double flops, py::handle ids, py::handle x, py::handle out) {
  const int64_t n = select(pool, ids);
  const Config& c = pool.network().config();
  return block_with<T>(n, c.input, c.output(), "x", x, out, [&](int64_t steps, Rows<const T> in, Rows<T> y) {
    run_unlocked(double(n) * double(steps) * flops, [&] { pool.process(steps, in, y); });
  });
}

template <class T>
void reset(StreamPool<T>& pool, py::handle ids) {
  const py::array_t<int64_t> given = ids_of(ids);
  const std::vector<int64_t> copy(given.data(), given.data() + given.size());  // theirs may change meanwhile
  select(pool, copy.data(), int64_t(copy.size()));
  for (const int64_t id : copy) pool.reset(pool.find(id));
}

template <class T>
py::object get_state(const StreamPool<T>& pool, int64_t id) {
  const Config& c = pool.network().config();
  const int slot = slot_of(pool, id);
  py::array_t<T> h({ssize_t(c.layers), ssize_t(c.output())});
  if (!pool.network().cell().has_cell_state) {
    pool.read_state(slot, h.mutable_data(), nullptr);
    return h;
  }
  py::array_t<T> cell({ssize_t(c.layers), ssize_t(c.hidden)});
  pool.read_state(slot, h.mutable_data(), cell.mutable_data());
  return py::make_tuple(h, cell);
}

template <class T>
void set_state(StreamPool<T>& pool, int64_t id, const py::object& state) {
  const Config& c = pool.network().config();
  const ssize_t layers = c.layers;
  const int slot = slot_of(pool, id);
  take_state<T>(state, pool.network().cell().has_cell_state, {layers, c.output()}, {layers, c.hidden},
                [&](const T* h, const T* cell) { pool.write_state(slot, h, cell); });
}

// In one call, so that no other thread's can come between: a stream whose id nobody was told would keep its place.
template <class T>
int64_t join(StreamPool<T>& pool, const py::object& state) {
  const int64_t id = pool.join();
  if (id < 0) {
    throw std::runtime_error("pool: full, all " + std::to_string(pool.capacity()) +
                             " places are taken; leave(id) frees one");
  }
  if (state.is_none()) return id;
  try {
    set_state(pool, id, state);
  } catch (...) {
    pool.leave(pool.find(id));
    throw;
  }
  return id;
}

template <class T>
py::array_t<int64_t> ids_in(const StreamPool<T>& pool) {
  py::array_t<int64_t> ids(pool.size());
  int64_t* to = ids.mutable_data();
  for (int64_t id : pool.book().ids) {
    if (id >= 0) *to++ = id;
  }
  return ids;
}

template <class T>
void restore(StreamPool<T>& pool, const std::vector<int64_t>& ids, const std::vector<int64_t>& next,
             const std::vector<int32_t>& free) {
  if (!pool.restore({ids, next, free})) throw py::value_error("pool: these ids were never those of a pool of its size");
}

// By any thread: the number of streams changes only where the GIL is held.
std::string repr_of(const AnyPool& any) {
  if (!any.network) return "<StreamPool, never initialised>";
  return looked_at(any, [&](auto& p) {
    return "<StreamPool of " + describe(any.network->config(), any.network->dtype()) + ": " + std::to_string(p.size()) +
           " of " + std::to_string(p.capacity()) + " streams>";
  });
}

constexpr Signature<3> kPoolStep = {"step", {"ids", "x", "out"}, 2};
constexpr Signature<3> kPoolProcess = {"process", {"ids", "x", "out"}, 2};

py::object call_pool_step(AnyPool& any, const Arguments<3>& a) {
  return claimed(any, [&](auto& p) { return step(p, any.step_flops, a[0], a[1], a[2]); });
}

py::object call_pool_process(AnyPool& any, const Arguments<3>& a) {
  return claimed(any, [&](auto& p) { return process(p, any.step_flops, a[0], a[1], a[2]); });
}

// The same in _core.pyi, for editors: a test compares them.
const char* const kPoolStepDoc =
    R"(Advance just these streams by one step and return their outputs.

Releases the GIL when there are more than about 20 us of work. After an error no stream has
advanced.

Args:
    ids: integers [n] in any order, each once. An int64 array is used where it lies.
    x: [n, I] in the order of the ids, or [I] with one id, of the pool's dtype: a NumPy
        array, or what has `__dlpack__` or `__array__`. Copied unless it is C-contiguous.
    out: [n, P], or [P] with one id: the array that y is written into and that is returned;
        nothing is allocated then. C-contiguous, writable, apart from x.

Returns:
    `out`, or a new array: [n, P] in the order of the ids, or [P] where x is [I].

Raises:
    TypeError: ids that are no integers; no array, a masked one, or one of another dtype.
    ValueError: an unknown or a repeated id; another shape; an `out` that is read-only, has
        gaps or overlaps x.
    RuntimeError: another thread uses the pool.)";
const char* const kPoolProcessDoc =
    R"(Advance just these streams by T steps: the bits of T calls of `step`, in less time.

Releases the GIL when there are more than about 20 us of work. After an error no stream has
advanced.

Args:
    ids: integers [n], as for `step`.
    x: [T, n, I] in the order of the ids, or [T, I] with one id, as x of `step`. T may be 0.
    out: [T, n, P], or [T, P] for x [T, I]: the array that y is written into and that is
        returned. C-contiguous, writable, apart from x.

Returns:
    `out`, or a new array of its shape.

Raises:
    TypeError: ids that are no integers; no array, a masked one, or one of another dtype.
    ValueError: an unknown or a repeated id; another shape; an `out` that is read-only, has
        gaps or overlaps x.
    RuntimeError: another thread uses the pool.)";
const char* const kIdsDoc = "Ids of all streams in the pool, int64 [len(pool)], in no particular order.";
const char* const kCapacityDoc = "How many streams the pool can hold.";
const char* const kThreadsDoc = "How many threads a step may use at most.";

}  // namespace

void bind_pool(py::module_& m) {
  py::class_<AnyPool> pool(m, "StreamPool");
  pool.def(py::init(&make_pool), py::arg("network").none(false), py::arg("capacity"), py::arg("num_threads"))
      .def(
          "join",
          [](AnyPool& any, const py::object& state) { return claimed(any, [&](auto& p) { return join(p, state); }); },
          py::arg("state"))
      .def(
          "leave", [](AnyPool& any, int64_t id) { claimed(any, [&](auto& p) { p.leave(slot_of(p, id)); }); },
          py::arg("id"))
      .def(
          "reset", [](AnyPool& any, py::handle ids) { claimed(any, [&](auto& p) { reset(p, ids); }); }, py::arg("ids"))
      .def(
          "get_state", [](AnyPool& any, int64_t id) { return claimed(any, [&](auto& p) { return get_state(p, id); }); },
          py::arg("id"))
      .def(
          "set_state",
          [](AnyPool& any, int64_t id, const py::object& state) {
            claimed(any, [&](auto& p) { set_state(p, id, state); });
          },
          py::arg("id"), py::arg("state"))
      .def("_restore",
           [](AnyPool& any, const std::vector<int64_t>& ids, const std::vector<int64_t>& next,
              const std::vector<int32_t>& free) { claimed(any, [&](auto& p) { restore(p, ids, next, free); }); })
      .def("_book",
           [](AnyPool& any) {
             return claimed(any, [](auto& p) { return py::make_tuple(p.book().ids, p.book().next, p.book().free); });
           })
      .def_property_readonly(
          "ids", [](AnyPool& any) { return claimed(any, [](auto& p) { return ids_in(p); }); }, kIdsDoc)
      .def("__repr__", [](const AnyPool& any) { return repr_of(any); })
      .def("__len__", [](AnyPool& any) { return claimed(any, [](auto& p) { return p.size(); }); })
      .def("__contains__",
           [](AnyPool& any, int64_t id) { return claimed(any, [&](auto& p) { return p.find(id) >= 0; }); })
      .def_property_readonly(
          "capacity", [](const AnyPool& any) { return looked_at(any, [](auto& p) { return p.capacity(); }); },
          kCapacityDoc)
      .def_property_readonly(
          "num_threads", [](const AnyPool& any) { return looked_at(any, [](auto& p) { return p.threads(); }); },
          kThreadsDoc);
  define_method<AnyPool, kPoolStep, &call_pool_step>(pool, kPoolStepDoc);
  define_method<AnyPool, kPoolProcess, &call_pool_process>(pool, kPoolProcessDoc);
  define_sizes(pool);
}

}  // namespace fastrnn
