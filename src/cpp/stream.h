// One step at a time with the memory carried along. Everything is allocated when the stream is
// made: on one thread step() takes no memory and no lock, and makes no system call; on more it
// may wake or start helpers. A stream belongs to one thread at a time; asked for more, it shares
// the units of each step among them, which pays where the weights outgrow one core's cache.
#pragma once

#include <memory>
#include <vector>

#include "network/network.h"

namespace fastrnn {

template <class T>
class Stream {
 public:
  // Shares the packed weights; the network must be unidirectional.
  Stream(std::shared_ptr<const Network<T>> network, int batch, int threads);
  Stream(const Stream&) = delete;  // nor moved: its tasks point into it

  void step(const T* x,      // [B, I]
            T* y) noexcept;  // [B, P]
  void process(int64_t steps, Rows<const T> x, Rows<T> y) noexcept;
  void reset() noexcept;
  void reset(int row) noexcept;

  void read_state(T* h,         // [L, B, P]
                  T* c) const;  // [L, B, H]; LSTM alone
  void write_state(const T* h, const T* c);

  void copy_state(const Stream& other);  // of the same network and batch

  int batch() const { return batch_; }
  int threads() const { return threads_; }
  const Network<T>& network() const { return *network_; }

 private:
  T* hidden(int layer, int slot) const;
  T* cell(int layer) const;
  // A step of one row on one thread, with rows_; returns its output.
  const T* step_row(const T* x) noexcept;
  // A step of several threads, each layer of which is parts for the crew.
  const T* step_shared(Rows<const T> x) noexcept;
  // Runs `steps` steps from x; each(step, slot) follows each of them, on one of the threads.
  template <class Each>
  void advance(int64_t steps, Rows<const T> x, Each each) noexcept;
  const T* top(int slot) const;

  std::shared_ptr<const Network<T>> network_;
  int batch_, threads_, pitch_;
  double step_ns_ = 0;  // roughly, on one thread
  void (*forward_)(const ForwardTask<T>&, const Share&);
  void (*forward_step_)(const ForwardTask<T>&, const RowStep<T>&);
  int slot_ = 0;  // which of the two h buffers holds the newest state
  std::vector<int32_t> order_, length_;
  int64_t first_[2];
  Block memory_;
  T *h_ = nullptr, *c_ = nullptr, *unprojected_ = nullptr;
  std::vector<ForwardTask<T>> tasks_;  // [2][L]: reading slot 0 or 1, writing the other
  std::vector<RowStep<T>> rows_;       // the same for one row, one thread and no projection, else empty
};

}  // namespace fastrnn
