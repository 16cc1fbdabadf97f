#include "stream.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace fastrnn {

template <class T>
Stream<T>::Stream(std::shared_ptr<const Network<T>> network, int batch, int threads)
    : network_(std::move(network)),
      batch_(batch),
      threads_(threads),
      pitch_(padded(network_->config().hidden)),
      forward_(network_->cell().forward),
      forward_step_(network_->cell().forward_step),
      order_(size_t(batch)),
      length_(size_t(batch), 1),
      first_{0, batch} {
  const Config& c = network_->config();
  std::iota(order_.begin(), order_.end(), 0);
  const size_t layers = size_t(c.layers), rows = size_t(batch);
  for (int layer = 0; layer < c.layers; ++layer) {
    step_ns_ += network_->plan(layer, {1, batch, batch, 1, Use::inference}).planned_ns;
  }
  memory_ = carved([&](Arena& arena) {
    h_ = arena.take<T>(2 * layers * rows * size_t(c.output()));
    c_ = arena.take<T>(layers * rows * size_t(pitch_));
    unprojected_ = arena.take_if<T>(c.projection > 0, rows * size_t(pitch_));
  });
  for (int slot = 0; slot < 2; ++slot) {
    for (int layer = 0; layer < c.layers; ++layer) {
      ForwardTask<T> task = network_->forward_task(layer);
      task.schedule = {order_.data(), length_.data(), first_, false};
      task.step_end = 1, task.odd = slot == 1;
      if (c.layers > 1) task.near = 0;
      if (layer) task.x = {hidden(layer - 1, 1 - slot), 0, c.output()};
      task.h0 = {hidden(layer, slot), c.output()};
      task.y = {hidden(layer, 1 - slot), 0, c.output()};
      task.cell = {cell(layer), pitch_}, task.c0 = {cell(layer), pitch_};
      task.unprojected = unprojected_;
      tasks_.push_back(task);
      if (batch > 1 || threads > 1 || c.projection) continue;
      rows_.push_back({task.x.data, task.h0.data, task.bias, task.c0.data, task.cell.data, nullptr, task.y.data});
    }
  }
  reset();
}

template <class T>
T* Stream<T>::hidden(int layer, int slot) const {
  const Config& c = network_->config();
  return h_ + (ptrdiff_t(slot) * c.layers + layer) * batch_ * c.output();
}

template <class T>
T* Stream<T>::cell(int layer) const {
  return c_ + ptrdiff_t(layer) * batch_ * pitch_;
}

template <class T>
const T* Stream<T>::top(int slot) const {
  return hidden(network_->config().layers - 1, slot);
}

// Apart from advance(), whose arguments travel in structs: put together from pointers and
// read as vectors, such a struct waits until its parts have left for the cache, behind
// all arithmetic of the step before (LSTM I1 H16 92 -> 80 ns; two threads did not gain). As
// a call of its own, where -O2 leaves it, 8 ns more.
template <class T>
[[gnu::always_inline]] inline const T* Stream<T>::step_row(const T* x) noexcept {
  const size_t layers = tasks_.size() / 2, first = slot_ ? layers : 0;
  rows_[first].x = x;
  for (size_t i = first; i < first + layers; ++i) forward_step_(tasks_[i], rows_[i]);
  slot_ ^= 1;
  return rows_[first + layers - 1].h;
}

template <class T>
const T* Stream<T>::step_shared(Rows<const T> x) noexcept {
  const size_t layers = tasks_.size() / 2, first = slot_ ? layers : 0;
  tasks_[first].x = x;
  for (size_t i = first; i < first + layers; ++i) {
    auto part = [forward = forward_, task = &tasks_[i], rows = batch_, parts = threads_](int n) {
      forward(*task, units_part(rows, n, parts));
    };
    network_->crew().share(threads_, 0, part);
  }
  slot_ ^= 1;
  return top(slot_);
}

template <class T>
template <class Each>
void Stream<T>::advance(int64_t steps, Rows<const T> x, Each each) noexcept {
  const auto part = [&](const Team& team, int64_t begin, int64_t end) {
    const Share share = share_units(batch_, team);
    const size_t layers = tasks_.size() / 2;
    ForwardTask<T> first[2] = {tasks_[0], tasks_[layers]};  // of this thread, with an x of its own
    int slot = int((slot_ + begin) & 1);
    for (int64_t t = begin; t < end; ++t, slot ^= 1) {
      first[slot].x = {x.data + t * x.step, 0, x.row};
      forward_(first[slot], share);
      for (size_t layer = 1; layer < layers; ++layer) forward_(tasks_[size_t(slot) * layers + layer], share);
      // The others may be a step ahead, not two: the slot that is read here is not written yet.
      if (team.rank == 0) each(t, slot ^ 1);
    }
  };
  if (threads_ == 1) {
    const KernelMode mode;
    part({0, 1, nullptr}, 0, steps);
  } else if (region_threads_awake()) {
    parallel(threads_, [&](const Team& team) { part(team, 0, steps); });
  } else {
    const KernelMode mode;  // also where steps are shared out
    network_->crew().walk(threads_, steps, step_ns_, part);
  }
  slot_ = int((slot_ + steps) & 1);
}

template <class T>
void Stream<T>::step(const T* x, T* y) noexcept {
  const Config& c = network_->config();
  if (!rows_.empty()) {
    const KernelMode mode;
    std::memcpy(y, step_row(x), size_t(c.output()) * sizeof(T));
    return;
  }
  if (threads_ > 1 && !c.projection && !region_threads_awake()) {
    std::memcpy(y, step_shared({x, 0, c.input}), size_t(batch_) * size_t(c.output()) * sizeof(T));
    return;
  }
  advance(1, {x, 0, c.input},
          [&](int64_t, int slot) { std::memcpy(y, top(slot), size_t(batch_) * size_t(c.output()) * sizeof(T)); });
}

template <class T>
void Stream<T>::process(int64_t steps, Rows<const T> x, Rows<T> y) noexcept {
  const size_t output = size_t(network_->config().output());
  if (!rows_.empty()) {
    const KernelMode mode;
    for (int64_t t = 0; t < steps; ++t) {
      std::memcpy(y.data + t * y.step, step_row(x.data + t * x.step), output * sizeof(T));
    }
    return;
  }
  advance(steps, x, [&](int64_t t, int slot) {
    for (size_t row = 0; row < size_t(batch_); ++row) {
      std::memcpy(y.data + t * y.step + ptrdiff_t(row) * y.row, top(slot) + row * output, output * sizeof(T));
    }
  });
}

template <class T>
void Stream<T>::reset() noexcept {
  std::memset(memory_.data(), 0, memory_.bytes());
}

template <class T>
void Stream<T>::reset(int row) noexcept {
  const Config& c = network_->config();
  for (int layer = 0; layer < c.layers; ++layer) {
    std::fill_n(hidden(layer, slot_) + ptrdiff_t(row) * c.output(), c.output(), T(0));
    std::fill_n(cell(layer) + ptrdiff_t(row) * pitch_, pitch_, T(0));
  }
}

template <class T>
void Stream<T>::read_state(T* h, T* c) const {
  const Config& config = network_->config();
  const ptrdiff_t n = ptrdiff_t(config.layers) * batch_;
  std::copy_n(hidden(0, slot_), n * config.output(), h);
  for (ptrdiff_t i = 0; c && i < n; ++i) std::copy_n(c_ + i * pitch_, config.hidden, c + i * config.hidden);
}

template <class T>
void Stream<T>::write_state(const T* h, const T* c) {
  const Config& config = network_->config();
  const ptrdiff_t n = ptrdiff_t(config.layers) * batch_;
  std::copy_n(h, n * config.output(), hidden(0, slot_));
  for (ptrdiff_t i = 0; c && i < n; ++i) std::copy_n(c + i * config.hidden, config.hidden, c_ + i * pitch_);
}

template <class T>
void Stream<T>::copy_state(const Stream& other) {
  std::memcpy(memory_.data(), other.memory_.data(), memory_.bytes());
  slot_ = other.slot_;
}

template class Stream<float>;
template class Stream<double>;

}  // namespace fastrnn
