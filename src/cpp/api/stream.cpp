// Streams. Nothing here but the creation may take memory, a lock or a system call.
#include "stream.h"

#include "api/streamed.h"

namespace fastrnn {
namespace {

template <class T>
std::unique_ptr<fastrnn_stream> make_stream(const fastrnn_layer& layer, int64_t batch, int threads) {
  check_streamed(layer);
  const int rows = within(batch, 1, kMaxSize, "batch");
  auto made = std::make_unique<fastrnn_stream>();
  made->typed = std::make_unique<Stream<T>>(std::get<Typed<T>>(layer.typed).network, rows, check_threads(threads));
  return made;
}

}  // namespace
}  // namespace fastrnn

using namespace fastrnn;

fastrnn_status fastrnn_stream_create(const fastrnn_layer* layer, int64_t batch, int32_t threads, fastrnn_stream** out,
                                     fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    need(layer, "layer");
    return layer->dtype() ? make_stream<double>(*layer, batch, threads) : make_stream<float>(*layer, batch, threads);
  });
}

void fastrnn_stream_free(fastrnn_stream* stream) noexcept { delete stream; }

int32_t fastrnn_stream_input_size(const fastrnn_stream* stream) FASTRNN_NONBLOCKING {
  return int32_t(size_of(stream, [](const auto& s) { return s.network().config().input; }));
}

int32_t fastrnn_stream_output_size(const fastrnn_stream* stream) FASTRNN_NONBLOCKING {
  return int32_t(size_of(stream, [](const auto& s) { return s.network().config().output(); }));
}

int64_t fastrnn_stream_batch_size(const fastrnn_stream* stream) FASTRNN_NONBLOCKING {
  return size_of(stream, [](const auto& s) { return s.batch(); });
}

fastrnn_status fastrnn_stream_config(const fastrnn_stream* stream, fastrnn_config* config) noexcept {
  return guarded(nullptr, [&] {
    need(stream, "stream"), need(config, "config");
    copy_config_of(*stream, config);
  });
}

fastrnn_status fastrnn_stream_step(fastrnn_stream* stream, const void* x, void* y) FASTRNN_NONBLOCKING {
  return with(stream, [&](auto& s, auto element) {
    using T = decltype(element);
    if (!usable<T>(x) || !usable<T>(y)) return FASTRNN_INVALID_ARGUMENT;
    s.step(static_cast<const T*>(x), static_cast<T*>(y));
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_stream_process(fastrnn_stream* stream, int64_t steps, const void* x, ptrdiff_t x_step,
                                      ptrdiff_t x_row, void* y, ptrdiff_t y_step, ptrdiff_t y_row) FASTRNN_NONBLOCKING {
  return with(stream, [&](auto& s, auto element) {
    using T = decltype(element);
    if (steps == 0) return FASTRNN_OK;
    Rows<const T> in = {static_cast<const T*>(x), x_step, x_row};
    Rows<T> out = {static_cast<T*>(y), y_step, y_row};
    if (steps < 0 || !usable_block(s.network().config(), steps, s.batch(), in, out)) return FASTRNN_INVALID_ARGUMENT;
    s.process(steps, in, out);
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_stream_reset(fastrnn_stream* stream) FASTRNN_NONBLOCKING {
  return with(stream, [](auto& s, auto) {
    s.reset();
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_stream_reset_row(fastrnn_stream* stream, int64_t row) FASTRNN_NONBLOCKING {
  return with(stream, [&](auto& s, auto) {
    if (row < 0 || row >= s.batch()) return FASTRNN_INVALID_ARGUMENT;
    s.reset(int(row));
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_stream_get_state(const fastrnn_stream* stream, void* h, void* c) FASTRNN_NONBLOCKING {
  return with(stream, [&](const auto& s, auto element) {
    using T = decltype(element);
    if (!usable_state(s.network(), h, c)) return FASTRNN_INVALID_ARGUMENT;
    s.read_state(static_cast<T*>(h), static_cast<T*>(c));
    return FASTRNN_OK;
  });
}

fastrnn_status fastrnn_stream_set_state(fastrnn_stream* stream, const void* h, const void* c) FASTRNN_NONBLOCKING {
  return with(stream, [&](auto& s, auto element) {
    using T = decltype(element);
    if (!usable_state(s.network(), h, c)) return FASTRNN_INVALID_ARGUMENT;
    s.write_state(static_cast<const T*>(h), static_cast<const T*>(c));
    return FASTRNN_OK;
  });
}
