// A dense layer y = x W^T + b on the same products as the recurrent layers, and so with the same promise of bits.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "backend.h"
#include "system/memory.h"
#include "threads/crew.h"

namespace fastrnn {

template <class T>
class Dense {
 public:
  Dense(const Backend& backend, int input, int output);

  // weight [O, I], bias [O] or null. They must live, unchanged, until the next pack.
  void pack(const T* weight, const T* bias);
  // The same for a run over so few rows that it reads the weights where they lie (network/unpacked.h); until another
  // use nothing is packed. False, and nothing has changed, where there are more.
  bool take(const T* weight, const T* bias, int64_t rows);
  void run(const T* x, T* y, int rows, int threads) const;  // x [N, I], y [N, O]
  // The same bits, on this thread: no memory, no lock. One row; or so many, their steps apart.
  void step(const T* x, T* y) const noexcept;
  void process(int64_t rows, Rows<const T> x, Rows<T> y) const noexcept;
  // dx [N, I] or null, dweight [O, I], dbias [O] or null: written whole.
  void backward(const T* x, const T* dy, T* dx, T* dweight, T* dbias, int rows, int threads) const;

  int input() const { return input_; }
  int output() const { return output_; }

 private:
  bool reads_unpacked(int64_t rows) const;
  size_t weight_bytes() const { return size_t(input_) * size_t(output_) * sizeof(T); }
  void set(const T* weight, const T* bias);
  void pack_bias(T* bias) const;  // [padded(O)]
  void pack_forward() const;
  void pack_backward() const;
  void run_unpacked(const T* x, T* y, int rows, int threads) const;
  void run_by_pieces(const T* x, T* y, int rows, int threads) const;
  ProductTask<T> forward_task() const;  // y of any rows
  // scratch: [threads][kOuterScratch] where weights are not packed
  void product(const ProductTask<T>& task, const T* in, T* out, int rows, int threads, T* scratch = nullptr) const;

  const Backend& backend_;
  const Kernels<T>& kernels_;
  int input_, output_;
  const T *raw_ = nullptr, *raw_bias_ = nullptr;
  Block forward_block_, bias_;
  mutable BlockPool pool_{4, size_t(16) << 20};  // addresses of rows for backward: millions of them are not kept
  std::shared_ptr<Crew> crew_;
  // Filled by the first use that needs it, behind the lock.
  mutable std::mutex mutex_;
  mutable std::atomic<bool> forward_ready_{false}, backward_ready_{false};
  mutable Block backward_block_, bf16_block_;  // the latter from the first weights on that are bfloat16
  mutable bool is_bf16_ = false;               // whether these are
};

}  // namespace fastrnn
