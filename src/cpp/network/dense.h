// A dense layer y = x W^T + b on the same products as the recurrent layers, and so with the same promise of bits.
#pragma once

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

  // weight [O, I], bias [O] or null. weight must live, unchanged, until the next pack.
  void pack(const T* weight, const T* bias);
  void run(const T* x, T* y, int rows, int threads) const;  // x [N, I], y [N, O]
  // The same bits, on this thread: no memory, no lock. One row; or so many, their steps apart.
  void step(const T* x, T* y) const noexcept;
  void process(int64_t rows, Rows<const T> x, Rows<T> y) const noexcept;
  // dx [N, I] or null, dweight [O, I], dbias [O] or null: written whole.
  void backward(const T* x, const T* dy, T* dx, T* dweight, T* dbias, int rows, int threads) const;

  int input() const { return input_; }
  int output() const { return output_; }

 private:
  ProductTask<T> forward_task() const;  // y of any rows
  void product(ProductTask<T> task, const T* in, T* out, int rows, int threads) const;

  const Backend& backend_;
  const Kernels<T>& kernels_;
  int input_, output_;
  const T* raw_ = nullptr;
  Block forward_block_, bias_;
  Block bf16_block_;                             // as in RowProduct, from the first weights on that are bfloat16
  bool is_bf16_ = false;                         // whether these are
  mutable BlockPool pool_{4, size_t(16) << 20};  // addresses of rows for backward: millions of them are not kept
  std::shared_ptr<Crew> crew_;
  mutable std::mutex mutex_;
  mutable Block backward_block_;
  mutable bool backward_ready_ = false;
};

}  // namespace fastrnn
