// Pools of streams. Nothing here but the creation may take memory, a lock or a system call.
#include "pool.h"

#include "api/streamed.h"

namespace fastrnn {
namespace {

template <class T>
std::unique_ptr<fastrnn_pool> make_pool(const fastrnn_layer& layer, int64_t capacity, int threads) {
  check_streamed(layer);
  const int most = within(capacity, 1, kMaxSize, "capacity");
  auto made = std::make_unique<fastrnn_pool>();
  made->typed = std::make_unique<StreamPool<T>>(std::get<Typed<T>>(layer.typed).network, most, check_threads(threads));
  return made;
}

// Names the streams of a call; false where they cannot be meant.
template <class T>
bool select(StreamPool<T>& pool, const int64_t* ids, int64_t n) noexcept {
  if (n < 0 || n > pool.capacity() || (n > 0 && !usable<int64_t>(ids))) return false;
  return pool.select(ids, n).fault == StreamPool<T>::Fault::none;
}

// visit(pool, the slot of the stream, the pool's element)
template <class Pool, class Visit>
fastrnn_status with_slot(Pool* handle, int64_t id, Visit visit) noexcept {
  return with(handle, [&](auto& pool, auto element) -> fastrnn_status {
    const int slot = pool.find(id);
    return slot < 0 ? FASTRNN_INVALID_ARGUMENT : visit(pool, slot, element);
  });
}

}  // namespace
}  // namespace fastrnn

using namespace fastrnn;

fastrnn_status fastrnn_pool_create(const fastrnn_layer* layer, int64_t capacity, int32_t threads, fastrnn_pool** out,
                                   fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    need(layer, "layer");
    return layer->dtype() ? make_pool<double>(*layer, capacity, threads) : make_pool<float>(*layer, capacity, threads);
  });
}

void fastrnn_pool_free(fastrnn_pool* pool) noexcept { delete pool; }

int32_t fastrnn_pool_input_size(const fastrnn_pool* pool) FASTRNN_NONBLOCKING {
  return int32_t(size_of(pool, [](const auto& p) { return p.network().config().input; }));
}

int32_t fastrnn_pool_output_size(const fastrnn_pool* pool) FASTRNN_NONBLOCKING {
  return int32_t(size_of(pool, [](const auto& p) { return p.network().config().output(); }));
}

int64_t fastrnn_pool_capacity(const fastrnn_pool* pool) FASTRNN_NONBLOCKING {
  return size_of(pool, [](const auto& p) { return p.capacity(); });
}

int64_t fastrnn_pool_size(const fastrnn_pool* pool) FASTRNN_NONBLOCKING {
  return size_of(pool, [](const auto& p) { return p.size(); });
}

fastrnn_status fastrnn_pool_config(const fastrnn_pool* pool, fastrnn_config* config) noexcept {
  return guarded(nullptr, [&] {
    need(pool, "pool"), need(config, "config");
    copy_config_of(*pool, config);
  });
}

int32_t fastrnn_pool_contains(const fastrnn_pool* pool, int64_t id) FASTRNN_NONBLOCKING {
  return int32_t(size_of(pool, [&](const auto& p) { return p.find(id) >= 0; }));
}

fastrnn_status fastrnn_pool_join(fastrnn_pool* pool, int64_t* id) FASTRNN_NONBLOCKING {
  return with(pool, [&](auto& p, auto) {
    if (!usable<int64_t>(id)) return FASTRNN_INVALID_ARGUMENT;
    *id = p.join();
    return *id < 0 ? FASTRNN_FULL : FASTRNN_OK;
  });
}

fastrnn_status fastrnn_pool_leave(fastrnn_pool* pool, int64_t id) FASTRNN_NONBLOCKING {
  return with_slot(pool, id, [](auto& p, int slot, auto) {
    p.leave(slot);
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_pool_step(fastrnn_pool* pool, const int64_t* ids, int64_t n, const void* x,
                                 void* y) FASTRNN_NONBLOCKING {
  return with(pool, [&](auto& p, auto element) {
    using T = decltype(element);
    if (!select(p, ids, n)) return FASTRNN_INVALID_ARGUMENT;
    if (n == 0) return FASTRNN_OK;
    if (!usable<T>(x) || !usable<T>(y)) return FASTRNN_INVALID_ARGUMENT;
    p.step(static_cast<const T*>(x), static_cast<T*>(y));
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_pool_process(fastrnn_pool* pool, const int64_t* ids, int64_t n, int64_t steps, const void* x,
                                    ptrdiff_t x_step, ptrdiff_t x_row, void* y, ptrdiff_t y_step,
                                    ptrdiff_t y_row) FASTRNN_NONBLOCKING {
  return with(pool, [&](auto& p, auto element) {
    using T = decltype(element);
    if (steps < 0 || !select(p, ids, n)) return FASTRNN_INVALID_ARGUMENT;
    if (n == 0 || steps == 0) return FASTRNN_OK;
    Rows<const T> in = {static_cast<const T*>(x), x_step, x_row};
    Rows<T> out = {static_cast<T*>(y), y_step, y_row};
    if (!usable_block(p.network().config(), steps, n, in, out)) return FASTRNN_INVALID_ARGUMENT;
    p.process(steps, in, out);
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_pool_reset(fastrnn_pool* pool, const int64_t* ids, int64_t n) FASTRNN_NONBLOCKING {
  return with(pool, [&](auto& p, auto) {
    if (!select(p, ids, n)) return FASTRNN_INVALID_ARGUMENT;
    for (int64_t i = 0; i < n; ++i) p.reset(p.find(ids[i]));
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_pool_get_state(const fastrnn_pool* pool, int64_t id, void* h, void* c) FASTRNN_NONBLOCKING {
  return with_slot(pool, id, [&](const auto& p, int slot, auto element) {
    using T = decltype(element);
    if (!usable_state(p.network(), h, c)) return FASTRNN_INVALID_ARGUMENT;
    p.read_state(slot, static_cast<T*>(h), static_cast<T*>(c));
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_pool_set_state(fastrnn_pool* pool, int64_t id, const void* h,
                                      const void* c) FASTRNN_NONBLOCKING {
  return with_slot(pool, id, [&](auto& p, int slot, auto element) {
    using T = decltype(element);
    if (!usable_state(p.network(), h, c)) return FASTRNN_INVALID_ARGUMENT;
    p.write_state(slot, static_cast<const T*>(h), static_cast<const T*>(c));
    return FASTRNN_OK;
  });
}
