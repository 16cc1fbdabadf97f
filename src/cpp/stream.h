// One step at a time with the memory carried along. Everything is allocated when the stream is made: step() takes no
// memory, no lock, no system call and no thread. A stream belongs to one thread.
#pragma once

#include <memory>
#include <vector>

#include "network/network.h"

namespace fastrnn {

template <class T>
class Stream {
 public:
  // Shares the packed weights; the network must be unidirectional.
  Stream(std::shared_ptr<const Network<T>> network, int batch);

  void step(const T* x,      // [B, I]
            T* y) noexcept;  // [B, P]
  void process(int64_t steps, Rows<const T> x, Rows<T> y) noexcept;
  void reset() noexcept;
  void reset(int row) noexcept;

  void read_state(T* h,         // [L, B, P]
                  T* c) const;  // [L, B, H]; LSTM alone
  void write_state(const T* h, const T* c);

  int batch() const { return batch_; }
  const Network<T>& network() const { return *network_; }

 private:
  T* hidden(int layer, int slot) const;
  T* cell(int layer) const;
  void advance(Rows<const T> x) noexcept;
  const T* newest() const;

  std::shared_ptr<const Network<T>> network_;
  int batch_, pitch_;
  int slot_ = 0;  // which of the two h buffers holds the newest state
  std::vector<int32_t> order_, length_;
  int64_t first_[2];
  Block memory_;
  T *h_ = nullptr, *c_ = nullptr, *unprojected_ = nullptr;
  std::vector<ForwardTask<T>> tasks_;  // [2][L]: reading slot 0 or 1, writing the other
};

}  // namespace fastrnn
