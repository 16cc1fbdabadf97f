// What is fed sample by sample: fastrnn.hpp, whose layers make it, includes this file.
#pragma once

#include <fastrnn/fastrnn.h>
#include <fastrnn/values.hpp>

namespace fastrnn {
inline namespace v1 {

// One sample at a time. One thread at a time; real-time safe when made with one thread. Every function here returns
// Status::invalid_argument for a null or misaligned pointer, process() for strides too, and does nothing then.
template <class T>
class Stream {
 public:
  Stream() noexcept = default;
  explicit Stream(fastrnn_stream* handle) noexcept : handle_(handle) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }

  // x [B, I] to y [B, P]; they may overlap.
  Status step(const T* x, T* y) FASTRNN_NONBLOCKING { return Status(fastrnn_stream_step(handle_.get(), x, y)); }
  // `steps` of them. Element (t, b, j) of x is x[t * x_step + b * x_row + j]; so is y.
  Status process(int64_t steps, const T* x, ptrdiff_t x_step, ptrdiff_t x_row, T* y, ptrdiff_t y_step,
                 ptrdiff_t y_row) FASTRNN_NONBLOCKING {
    return Status(fastrnn_stream_process(handle_.get(), steps, x, x_step, x_row, y, y_step, y_row));
  }
  // The same for one row: x [T] rows of x_step elements, y [T] rows of y_step.
  Status process(int64_t steps, const T* x, ptrdiff_t x_step, T* y, ptrdiff_t y_step) FASTRNN_NONBLOCKING {
    return process(steps, x, x_step, 0, y, y_step, 0);
  }
  Status reset() FASTRNN_NONBLOCKING { return Status(fastrnn_stream_reset(handle_.get())); }
  Status reset(int64_t row) FASTRNN_NONBLOCKING { return Status(fastrnn_stream_reset_row(handle_.get(), row)); }
  // h [L, B, P], c [L, B, H] of an LSTM, else null.
  Status get_state(T* h, T* c = nullptr) const FASTRNN_NONBLOCKING {
    return Status(fastrnn_stream_get_state(handle_.get(), h, c));
  }
  Status set_state(const T* h, const T* c = nullptr) FASTRNN_NONBLOCKING {
    return Status(fastrnn_stream_set_state(handle_.get(), h, c));
  }
  // Of the layer, which may be gone.
  int32_t input_size() const FASTRNN_NONBLOCKING { return fastrnn_stream_input_size(handle_.get()); }
  int32_t output_size() const FASTRNN_NONBLOCKING { return fastrnn_stream_output_size(handle_.get()); }
  int64_t batch_size() const FASTRNN_NONBLOCKING { return fastrnn_stream_batch_size(handle_.get()); }
  Config config() const noexcept {
    fastrnn_config c;
    fastrnn_config_default(&c);
    fastrnn_stream_config(handle_.get(), &c);
    return detail::config_of(c);
  }
  fastrnn_stream* handle() const noexcept { return handle_.get(); }

 private:
  detail::Owner<fastrnn_stream, fastrnn_stream_free> handle_;
};

// Many streams of one layer that come and go, any of them advanced together. One thread at a time; real-time safe when
// made with one thread. Every function here returns Status::invalid_argument for an id that no stream has, for the same
// stream twice, more than there is room for, a null or misaligned pointer, process() for strides too, and does nothing
// then.
template <class T>
class StreamPool {
 public:
  StreamPool() noexcept = default;
  explicit StreamPool(fastrnn_pool* handle) noexcept : handle_(handle) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }

  // A stream from zeros, and its id, which no other one ever has; Status::full, and -1, when there is no room.
  Status join(int64_t* id) FASTRNN_NONBLOCKING { return Status(fastrnn_pool_join(handle_.get(), id)); }
  Status leave(int64_t id) FASTRNN_NONBLOCKING { return Status(fastrnn_pool_leave(handle_.get(), id)); }
  bool contains(int64_t id) const FASTRNN_NONBLOCKING { return fastrnn_pool_contains(handle_.get(), id) != 0; }

  // Of n streams, in any order: x [n, I] to y [n, P] in that of ids [n]. x and y do not overlap.
  Status step(const int64_t* ids, int64_t n, const T* x, T* y) FASTRNN_NONBLOCKING {
    return Status(fastrnn_pool_step(handle_.get(), ids, n, x, y));
  }
  // `steps` of them. Element (t, i, j) of x, for the stream ids[i], is x[t * x_step + i * x_row + j]; so is y.
  Status process(const int64_t* ids, int64_t n, int64_t steps, const T* x, ptrdiff_t x_step, ptrdiff_t x_row, T* y,
                 ptrdiff_t y_step, ptrdiff_t y_row) FASTRNN_NONBLOCKING {
    return Status(fastrnn_pool_process(handle_.get(), ids, n, steps, x, x_step, x_row, y, y_step, y_row));
  }
  Status reset(int64_t id) FASTRNN_NONBLOCKING { return reset(&id, 1); }
  Status reset(const int64_t* ids, int64_t n) FASTRNN_NONBLOCKING {
    return Status(fastrnn_pool_reset(handle_.get(), ids, n));
  }
  // h [L, P], c [L, H] of an LSTM, else null.
  Status get_state(int64_t id, T* h, T* c = nullptr) const FASTRNN_NONBLOCKING {
    return Status(fastrnn_pool_get_state(handle_.get(), id, h, c));
  }
  Status set_state(int64_t id, const T* h, const T* c = nullptr) FASTRNN_NONBLOCKING {
    return Status(fastrnn_pool_set_state(handle_.get(), id, h, c));
  }
  // How many streams there are, and may be.
  int64_t size() const FASTRNN_NONBLOCKING { return fastrnn_pool_size(handle_.get()); }
  int64_t capacity() const FASTRNN_NONBLOCKING { return fastrnn_pool_capacity(handle_.get()); }
  // Of the layer, which may be gone.
  int32_t input_size() const FASTRNN_NONBLOCKING { return fastrnn_pool_input_size(handle_.get()); }
  int32_t output_size() const FASTRNN_NONBLOCKING { return fastrnn_pool_output_size(handle_.get()); }
  Config config() const noexcept {
    fastrnn_config c;
    fastrnn_config_default(&c);
    fastrnn_pool_config(handle_.get(), &c);
    return detail::config_of(c);
  }
  fastrnn_pool* handle() const noexcept { return handle_.get(); }

 private:
  detail::Owner<fastrnn_pool, fastrnn_pool_free> handle_;
};

}  // namespace v1
}  // namespace fastrnn
