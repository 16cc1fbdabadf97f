#include "pool.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "threads/guarded_mode.h"

namespace fastrnn {
namespace {

// Rows of a chunk: 16 tiles of six, or 12 of eight. LSTM 128 on 4,096 streams: see docs/performance.md.
constexpr int kChunk = 96;
// Steps that a layer makes at most before the next one does, and of how many rows its outputs are kept for that: the
// state of a chunk is gathered and scattered once for all of them. One layer alone keeps none.
constexpr int kSteps = 64, kKept = 4 * kChunk;

}  // namespace

template <class T>
StreamPool<T>::StreamPool(std::shared_ptr<const Network<T>> network, int capacity, int threads)
    : network_(std::move(network)),
      capacity_(capacity),
      threads_(threads),
      pitch_(padded(network_->config().hidden)),
      seen_(size_t(capacity), 0),
      slots_(size_t(capacity), 0),
      order_(kChunk),
      length_(kChunk, 1),
      chunks_(size_t(threads)) {
  const Config& c = network_->config();
  while (int64_t(1) << bits_ < capacity) ++bits_;
  std::iota(order_.begin(), order_.end(), 0);
  book_.ids.assign(size_t(capacity), -1);
  book_.next.resize(size_t(capacity));
  std::iota(book_.next.begin(), book_.next.end(), 0);
  book_.free.resize(size_t(capacity));
  std::iota(book_.free.rbegin(), book_.free.rend(), 0);
  layer_size_ = padded(c.output()) + (network_->cell().has_cell_state ? pitch_ : 0);
  const size_t size = size_t(capacity) * size_t(c.layers) * size_t(layer_size_) * sizeof(T);
  memory_ = Block(size);
  std::memset(memory_.data(), 0, size);
  state_ = reinterpret_cast<T*>(memory_.data());
  const size_t most = size_t(std::min(kChunk, capacity));
  const size_t kept = std::min(size_t(kKept), size_t(kSteps) * size_t(capacity));
  work_ = carved([&](Arena& arena) {
    for (Chunk& chunk : chunks_) {
      chunk.h = arena.take<T>(most * size_t(c.output()));
      chunk.cell = arena.take<T>(most * size_t(pitch_));
      chunk.unprojected = arena.take_if<T>(c.projection > 0, most * size_t(pitch_));
      for (T*& y : chunk.y) y = arena.take_if<T>(c.layers > 1, kept * size_t(c.output()));
    }
  });
  std::memset(work_.data(), 0, work_.bytes());
}

template <class T>
T* StreamPool<T>::hidden(int slot, int layer) const {
  return state_ + (ptrdiff_t(slot) * network_->config().layers + layer) * layer_size_;
}

template <class T>
T* StreamPool<T>::cell(int slot, int layer) const {
  return hidden(slot, layer) + padded(network_->config().output());
}

template <class T>
int64_t StreamPool<T>::join() noexcept {
  if (book_.free.empty()) return -1;
  const int slot = book_.free.back();
  book_.free.pop_back();
  reset(slot);
  const int64_t id = book_.next[size_t(slot)];
  book_.ids[size_t(slot)] = id;
  book_.next[size_t(slot)] = id + (int64_t(1) << bits_);
  return id;
}

template <class T>
void StreamPool<T>::leave(int slot) noexcept {
  book_.ids[size_t(slot)] = -1;
  book_.free.push_back(slot);  // within the capacity that the constructor made
}

template <class T>
void StreamPool<T>::reset(int slot) noexcept {
  std::fill_n(hidden(slot, 0), network_->config().layers * layer_size_, T(0));
}

template <class T>
int StreamPool<T>::find(int64_t id) const noexcept {
  if (id < 0) return -1;
  const int64_t slot = id & ((int64_t(1) << bits_) - 1);
  return slot < capacity_ && book_.ids[size_t(slot)] == id ? int(slot) : -1;
}

template <class T>
typename StreamPool<T>::Selected StreamPool<T>::select(const int64_t* ids, int64_t n) noexcept {
  selected_ = 0;
  ++round_;
  for (int64_t i = 0; i < n; ++i) {
    const int slot = find(ids[i]);
    if (slot < 0) return {Fault::unknown, i};
    if (seen_[size_t(slot)] == round_) return {Fault::repeated, i};
    seen_[size_t(slot)] = round_;
    slots_[size_t(i)] = slot;
  }
  selected_ = n;
  return {Fault::none, n};
}

template <class T>
void StreamPool<T>::gather(const Chunk& chunk, int layer, int64_t begin, int rows) const noexcept {
  const int output = network_->config().output();
  const bool has_cell = network_->cell().has_cell_state;
  for (int i = 0; i < rows; ++i) {
    const int slot = slots_[size_t(begin + i)];
    std::memcpy(chunk.h + ptrdiff_t(i) * output, hidden(slot, layer), size_t(output) * sizeof(T));
    if (has_cell) std::memcpy(chunk.cell + ptrdiff_t(i) * pitch_, cell(slot, layer), size_t(pitch_) * sizeof(T));
  }
}

template <class T>
void StreamPool<T>::scatter(const Chunk& chunk, int layer, int64_t begin, int rows, BatchRows<const T> y) noexcept {
  const int output = network_->config().output();
  const bool has_cell = network_->cell().has_cell_state;
  for (int i = 0; i < rows; ++i) {
    const int slot = slots_[size_t(begin + i)];
    std::memcpy(hidden(slot, layer), row_of(y, i), size_t(output) * sizeof(T));
    if (has_cell) std::memcpy(cell(slot, layer), chunk.cell + ptrdiff_t(i) * pitch_, size_t(pitch_) * sizeof(T));
  }
}

// A part through all layers, by one thread or, where it splits the units, by all of a team.
template <class T>
void StreamPool<T>::run(const Chunk& chunk, const Part& part, const Team& team) noexcept {
  const Config& c = network_->config();
  const Share share = share_units(part.rows, team);
  Rows<const T> in = part.x;
  for (int layer = 0; layer < c.layers; ++layer) {
    Rows<T> out = part.y;
    if (layer + 1 < c.layers) out = {chunk.y[layer & 1], ptrdiff_t(part.rows) * c.output(), c.output()};
    if (team.rank == 0) gather(chunk, layer, part.begin, part.rows);
    team.wait();
    ForwardTask<T> task = network_->forward_task(layer);
    task.schedule = {order_.data(), length_.data(), part.first, false};
    task.step_end = part.steps, task.odd = part.odd;
    if (c.layers > 1 && part.steps == 1) task.near = 0;
    task.x = in, task.h0 = {chunk.h, c.output()}, task.y = out;
    task.cell = {chunk.cell, pitch_}, task.c0 = {chunk.cell, pitch_}, task.unprojected = chunk.unprojected;
    network_->cell().forward(task, share);  // its threads meet at the end
    if (team.rank == 0) {
      scatter(chunk, layer, part.begin, part.rows, {out.data + (part.steps - 1) * out.step, out.row});
    }
    in = {out.data, out.step, out.row};
  }
}

// All steps of a call by the rows of a chunk, as many at once as layers can hand on.
template <class T>
void StreamPool<T>::run_all(const Chunk& chunk, const Part& all, const Team& team) noexcept {
  const int most = network_->config().layers == 1 ? kSteps : std::clamp(kKept / all.rows, 1, kSteps);
  int64_t first[kSteps + 1];
  for (int64_t t = 0; t <= std::min<int64_t>(all.steps, most); ++t) first[t] = t * all.rows;
  Part part = all;
  part.first = first;
  for (int64_t t = 0; t < all.steps; t += part.steps) {
    part.steps = std::min<int64_t>(all.steps - t, most);
    part.odd = all.odd != bool(t & 1);
    part.x.data = all.x.data + t * all.x.step, part.y.data = all.y.data + t * all.y.step;
    run(chunk, part, team);
  }
}

// The streams [from, to) of those selected, chunk by chunk. Every other pass over the weights walks down where the one
// before walked up (`cover` in gemm/cover.h).
template <class T>
void StreamPool<T>::run_chunks(const Chunk& chunk, int64_t from, int64_t to, const Part& call,
                               const Team& team) noexcept {
  const int64_t chunks = (to - from + kChunk - 1) / kChunk;  // of nearly equal size: no chunk of a row or two
  Part all = call;
  for (int64_t i = 0; i < chunks; ++i) {
    const Range rows = part_of(to - from, i, chunks);
    all.begin = from + rows.begin, all.rows = int(rows.end - rows.begin);
    all.odd = (round_ * chunks + i) & call.steps & 1;
    all.x.data = call.x.data + all.begin * call.x.row, all.y.data = call.y.data + all.begin * call.y.row;
    run_all(chunk, all, team);
  }
}

template <class T>
void StreamPool<T>::process(int64_t steps, Rows<const T> x, Rows<T> y) noexcept {
  const int64_t n = selected_;
  if (n == 0 || steps == 0) return;
  const Part call = {0, 0, steps, nullptr, false, x, y};
  const Team alone = {0, 1, nullptr};
  if (threads_ == 1) {
    const KernelMode mode;
    return run_chunks(chunks_[0], 0, n, call, alone);
  }
  const GuardedMode mode;  // of what is computed for the plan, too
  const auto plan_of = [&](int64_t t) { return network_->plan(0, {t, int(n), t * n, threads_, Use::inference}); };
  Plan plan = plan_of(steps);
  // No W x is made ahead here. A plan for one step would not see that there is work for two: one stream of LSTM H64,
  // 100 steps, 115 us as on one thread, by units 70.
  if (plan.split == Split::pipeline) plan = plan_of(kPipelineSteps);
  auto body = [&](const Team& team) {
    if (plan.split == Split::units) return run_chunks(chunks_[0], 0, n, call, team);
    const Range mine = part_of(n, team.rank, team.size);
    run_chunks(chunks_[size_t(team.rank)], mine.begin, mine.end, call, alone);
  };
  network_->spread(plan, plan.planned_ns * double(steps) * network_->config().layers, body);
}

template <class T>
void StreamPool<T>::step(const T* x, T* y) noexcept {
  const Config& c = network_->config();
  process(1, {x, 0, c.input}, {y, 0, c.output()});
}

template <class T>
void StreamPool<T>::read_state(int slot, T* h, T* c) const {
  const Config& config = network_->config();
  for (int layer = 0; layer < config.layers; ++layer) {
    std::copy_n(hidden(slot, layer), config.output(), h + ptrdiff_t(layer) * config.output());
    if (c) std::copy_n(cell(slot, layer), config.hidden, c + ptrdiff_t(layer) * config.hidden);
  }
}

template <class T>
void StreamPool<T>::write_state(int slot, const T* h, const T* c) {
  const Config& config = network_->config();
  for (int layer = 0; layer < config.layers; ++layer) {
    std::copy_n(h + ptrdiff_t(layer) * config.output(), config.output(), hidden(slot, layer));
    if (c) std::copy_n(c + ptrdiff_t(layer) * config.hidden, config.hidden, cell(slot, layer));
  }
}

template <class T>
bool StreamPool<T>::restore(const Book& book) {
  const int64_t stride = int64_t(1) << bits_;
  if (book.ids.size() != size_t(capacity_) || book.next.size() != size_t(capacity_)) return false;
  std::vector<bool> free(size_t(capacity_), false);
  for (int32_t slot : book.free) {
    if (slot < 0 || slot >= capacity_ || free[size_t(slot)]) return false;
    free[size_t(slot)] = true;
  }
  for (int64_t slot = 0; slot < capacity_; ++slot) {
    const int64_t id = book.ids[size_t(slot)], next = book.next[size_t(slot)];
    if (free[size_t(slot)] != (id == -1) || next < 0 || next % stride != slot) return false;
    if (next > INT64_MAX / 2) return false;  // nobody has joined so often, and ids are not to overflow
    if (id != -1 && (id < 0 || id % stride != slot || id >= next)) return false;
  }
  book_.ids = book.ids, book_.next = book.next;
  book_.free.assign(book.free.begin(), book.free.end());
  book_.free.reserve(size_t(capacity_));
  return true;
}

template class StreamPool<float>;
template class StreamPool<double>;

}  // namespace fastrnn
