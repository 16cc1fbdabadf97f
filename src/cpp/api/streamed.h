// What streams and pools of them have in common behind the C border. Nothing here but check_streamed may take memory, a
// lock or a system call.
#pragma once

#include "api/handles.h"

namespace fastrnn {

inline void check_streamed(const fastrnn_layer& layer) {
  need_ready(layer);
  if (layer.config.bidirectional) {
    refuse("layer: expected one direction; the reverse direction starts at the end of the sequence");
  }
}

// visit(what the handle holds, its element): std::visit may throw, this may not.
template <class Handle, class Visit>
fastrnn_status with(Handle* handle, Visit visit) noexcept {
  if (!handle) return FASTRNN_INVALID_ARGUMENT;
  if (auto* const typed = std::get_if<0>(&handle->typed)) return visit(**typed, float());
  return visit(**std::get_if<1>(&handle->typed), double());
}

// size(what the handle holds), of no handle 0.
template <class Handle, class Size>
int64_t size_of(const Handle* handle, Size size) noexcept {
  int64_t found = 0;
  with(handle, [&](const auto& held, auto) {
    found = size(held);
    return FASTRNN_OK;
  });
  return found;
}

template <class Handle>
void copy_config_of(const Handle& handle, fastrnn_config* config) {
  std::visit([&](const auto& held) { copy_config(held->network().config(), int(handle.typed.index()), config); },
             handle.typed);
}

// Whether h and c can be a state: c is for an LSTM, and for it alone.
template <class T>
bool usable_state(const Network<T>& network, const void* h, const void* c) noexcept {
  return usable<T>(h) && (network.cell().has_cell_state ? usable<T>(c) : c == nullptr);
}

// Whether x [steps, rows, I] and y [steps, rows, P] can be read and written; strides that lead nowhere become 0.
template <class T>
bool usable_block(const Config& c, int64_t steps, int64_t rows, Rows<const T>& x, Rows<T>& y) noexcept {
  return usable<T>(x.data) && usable<T>(y.data) && judge(x.step, x.row, steps, rows, c.input, false) == Strides::good &&
         judge(y.step, y.row, steps, rows, c.output(), true) == Strides::good;
}

}  // namespace fastrnn
