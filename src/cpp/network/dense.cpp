#include "network/dense.h"

#include <algorithm>
#include <type_traits>

#include "network/bf16.h"
#include "plan/plan.h"
#include "threads/threads.h"

namespace fastrnn {
namespace {

template <class T>
T* values(const Block& block) {
  return reinterpret_cast<T*>(block.data());
}

// Rows whose addresses a thread keeps at a time, on its stack: whole tiles, whatever their height. So few rows also
// stay in the second-level cache while the outputs pass: 4096 rows, 512 by 512, two threads, AVX2 28.3 to 19.8 ms.
constexpr int kRowsAtOnce = 240;

// This thread's part of a product, the rows their steps apart.
template <class T>
void product_part(const Kernels<T>& kernels, ProductTask<T> task, Rows<const T> in, Rows<T> out, const Share& share) {
  const T* from[kRowsAtOnce];
  T* to[kRowsAtOnce];
  task.in = from, task.out = to;
  for (ptrdiff_t first = share.row_begin; first < share.row_end; first += kRowsAtOnce) {  // an int may overflow
    const int rows = int(std::min<ptrdiff_t>(kRowsAtOnce, share.row_end - first));
    for (int i = 0; i < rows; ++i) from[i] = in.data + (first + i) * in.step, to[i] = out.data + (first + i) * out.step;
    kernels.product(task, units_part(rows, share.unit_part, share.unit_parts));
  }
}

// sums[j] of `rows` rows, for j in [begin, end): in blocks, as every sum over rows. `block`: as long as sums.
template <class T>
void column_sums(const T* values, int columns, int rows, int begin, int end, T* block, T* sums) {
  std::fill(sums + begin, sums + end, T(0));
  for (ptrdiff_t first = 0; first < rows; first += kSumBlock) {
    std::fill(block + begin, block + end, T(0));
    for (ptrdiff_t i = first; i < std::min<ptrdiff_t>(rows, first + kSumBlock); ++i) {
      for (int j = begin; j < end; ++j) block[j] += values[i * columns + j];
    }
    for (int j = begin; j < end; ++j) sums[j] += block[j];
  }
}

}  // namespace

template <class T>
Dense<T>::Dense(const Backend& backend, int input, int output)
    : backend_(backend),
      kernels_(kernels_of<T>(backend)),
      input_(input),
      output_(output),
      forward_block_(whole_vectors(kernels_, output) * size_t(input) * sizeof(T)),
      bias_(size_t(padded(output)) * sizeof(T)),
      crew_(Crew::shared()) {}

template <class T>
void Dense<T>::pack(const T* weight, const T* bias) {
  const std::lock_guard<std::mutex> lock(mutex_);
  raw_ = weight;
  backward_ready_ = false;
  kernels_.pack_rows(weight, output_, input_, 0, 1, values<T>(forward_block_));
  std::fill_n(values<T>(bias_), padded(output_), T(0));
  if (bias) std::copy_n(bias, output_, values<T>(bias_));
  if constexpr (std::is_same_v<T, float>) {
    const bool found = forward_block_.bytes() >= kLeastHalved && all_bf16(weight, size_t(input_) * size_t(output_));
    const size_t bytes = whole_vectors(kernels_, output_) * size_t(pairs_of(input_)) * sizeof(uint32_t);
    if (found && !bf16_block_.data()) bf16_block_ = block_if_any([&] { return Block(bytes); });
    is_bf16_ = found && bf16_block_.data();
    if (!is_bf16_) return;
    backend_.bf16.pack_rows(values<T>(forward_block_), output_, input_, 0, 1, values<uint32_t>(bf16_block_));
  }
}

template <class T>
ProductTask<T> Dense<T>::forward_task() const {
  static const int offset = 0;
  const uint32_t* const bf16 = is_bf16_ ? values<uint32_t>(bf16_block_) : nullptr;
  return {nullptr, nullptr, 1, input_, &offset, values<T>(forward_block_), values<T>(bias_), output_, false, bf16};
}

template <class T>
void Dense<T>::product(ProductTask<T> task, const T* in, T* out, int rows, int threads) const {
  const double flops = 2.0 * rows * task.depth * task.outputs;
  const int workers = threads_for(flops, kernels_.lanes, threads);
  auto part = [&](const Team& team) {
    const Range mine = part_of(rows, team.rank, team.size);
    const Share share =
        rows >= team.size ? rows_between(int(mine.begin), int(mine.end)) : units_part(rows, team.rank, team.size);
    product_part<T>(kernels_, task, {in, task.depth, 0}, {out, task.outputs, 0}, share);
  };
  const double ns = least_ns(flops, kernels_.lanes, workers);
  if (workers == 1 || !suits_crew(ns) || region_threads_awake()) return parallel(workers, part);
  crew_->share(workers, ns, [&](int rank) { part({rank, workers, nullptr}); });
}

template <class T>
void Dense<T>::run(const T* x, T* y, int rows, int threads) const {
  product(forward_task(), x, y, rows, threads);
}

template <class T>
void Dense<T>::step(const T* x, T* y) const noexcept {
  ProductTask<T> task = forward_task();
  task.in = &x, task.out = &y;
  const KernelMode mode;
  kernels_.product(task, rows_between(0, 1));
}

template <class T>
void Dense<T>::process(int64_t rows, Rows<const T> x, Rows<T> y) const noexcept {
  const ProductTask<T> task = forward_task();
  const KernelMode mode;
  while (rows > 0) {
    const int now = int(std::min<int64_t>(rows, kRowsAtOnce));
    product_part(kernels_, task, x, y, rows_between(0, now));
    rows -= now, x.data += now * x.step, y.data += now * y.step;
  }
}

template <class T>
void Dense<T>::backward(const T* x, const T* dy, T* dx, T* dweight, T* dbias, int rows, int threads) const {
  if (dx) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!backward_block_.data()) {
        backward_block_ = Block(whole_vectors(kernels_, input_) * size_t(output_) * sizeof(T));
      }
      if (!backward_ready_) kernels_.pack_columns(raw_, input_, output_, 0, 1, values<T>(backward_block_));
      backward_ready_ = true;
    }
    const int offset = 0;
    product({nullptr, nullptr, 1, output_, &offset, values<T>(backward_block_), nullptr, input_, false}, dy, dx, rows,
            threads);
  }
  if (rows == 0) {
    std::fill_n(dweight, ptrdiff_t(output_) * input_, T(0));
    if (dbias) std::fill_n(dbias, output_, T(0));
    return;
  }
  const int workers = threads_for(2.0 * rows * input_ * output_, kernels_.lanes, threads);
  static_assert(kOuterScratch<T> * sizeof(T) % kAlign == 0, "each thread's begins a cache line");
  const T** b = nullptr;                  // [N] rows of x
  T *scratch = nullptr, *sums = nullptr;  // [threads][kOuterScratch], [O]
  const Loan work = carved(pool_, [&](Arena& arena) {
    b = arena.take<const T*>(size_t(rows));
    scratch = arena.take<T>(size_t(workers), kOuterScratch<T>);
    sums = arena.take<T>(size_t(output_));
  });
  for (ptrdiff_t i = 0; i < rows; ++i) b[i] = x + i * input_;
  parallel(workers, [&](const Team& team) {
    const int column = 0;
    OuterTask<T> task = {};
    task.a = dy, task.a_step = output_, task.gate_column = &column, task.hidden = output_;
    const Range mine = part_of(output_, team.rank, team.size);
    task.row_begin = int(mine.begin), task.row_end = int(mine.end);
    const OuterRight<T> right = {b, input_, dweight};
    task.rows = rows, task.right = &right, task.rights = 1;
    task.scratch = scratch + size_t(team.rank) * kOuterScratch<T>;
    if (dbias) column_sums(dy, output_, rows, task.row_begin, task.row_end, sums, dbias);
    kernels_.outer(task);
  });
}

template class Dense<float>;
template class Dense<double>;

}  // namespace fastrnn
