#include "network/dense.h"

#include <algorithm>
#include <type_traits>

#include "network/bf16.h"
#include "network/pieces.h"
#include "network/weights.h"
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

// sums[j] of `rows` rows, for j in [begin, end): in blocks, as every sum over rows. `block`: as long as sums. The
// kernel column_sums adds in the same order, but whole vectors alone: rows of dy, not padded, may end within one.
template <class T>
void unpadded_column_sums(const T* values, int columns, int rows, int begin, int end, T* block, T* sums) {
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
  set(weight, bias);
  pack_forward();
}

template <class T>
bool Dense<T>::take(const T* weight, const T* bias, int64_t rows) {
  if (!reads_unpacked(rows)) return false;
  set(weight, bias);
  return true;
}

// (Smaller weights are packed in no time, and have too few columns for all threads.)
template <class T>
bool Dense<T>::reads_unpacked(int64_t rows) const {
  if (rows < 1 || output_ < kPad) return false;
  return rows <= kernels_.group_rows || (rows <= kMostUnpackedRows && weight_bytes() >= kWorthReadingTogether);
}

template <class T>
void Dense<T>::set(const T* weight, const T* bias) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool taken = !forward_ready_ && !backward_ready_ && raw_ == weight && raw_bias_ == bias;
  if (taken) return;  // somebody may be multiplying with them
  raw_ = weight, raw_bias_ = bias;
  forward_ready_ = backward_ready_ = false;
}

template <class T>
void Dense<T>::pack_bias(T* bias) const {
  std::fill_n(bias, padded(output_), T(0));
  if (raw_bias_) std::copy_n(raw_bias_, output_, bias);
}

template <class T>
void Dense<T>::pack_forward() const {
  if (forward_ready_.load(std::memory_order_acquire)) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (forward_ready_) return;
  kernels_.pack_rows({raw_, 1, output_, input_, 0, 1, values<T>(forward_block_), weight_bytes() > kMostPackedInCaches});
  pack_bias(values<T>(bias_));
  if constexpr (std::is_same_v<T, float>) {
    const bool found = forward_block_.bytes() >= kLeastHalved && all_bf16(raw_, size_t(input_) * size_t(output_));
    const size_t bytes = whole_vectors(kernels_, output_) * size_t(pairs_of(input_)) * sizeof(uint32_t);
    if (found && !bf16_block_.data()) bf16_block_ = block_if_any([&] { return Block(bytes); });
    is_bf16_ = found && bf16_block_.data();
    if (is_bf16_) {
      backend_.bf16.pack_rows(values<T>(forward_block_), output_, input_, 0, 1, values<uint32_t>(bf16_block_));
    }
  }
  forward_ready_.store(true, std::memory_order_release);
}

template <class T>
ProductTask<T> Dense<T>::forward_task() const {
  static const int offset = 0;
  const uint32_t* const bf16 = is_bf16_ ? values<uint32_t>(bf16_block_) : nullptr;
  return {nullptr, nullptr, 1, input_, &offset, values<T>(forward_block_), values<T>(bias_), output_, false, bf16};
}

template <class T>
void Dense<T>::product(const ProductTask<T>& task, const T* in, T* out, int rows, int threads, T* scratch) const {
  const double flops = 2.0 * rows * task.depth * task.outputs;
  const int workers = threads_for(flops, kernels_.lanes, threads);
  auto part = [&](const Team& team) {
    ProductTask<T> own = task;
    if (scratch) own.scratch = scratch + size_t(team.rank) * kOuterScratch<T>;
    const Range mine = part_of(rows, team.rank, team.size);
    const bool by_rows = rows >= team.size && !task.unpacked;
    const Share share = by_rows ? rows_between(int(mine.begin), int(mine.end)) : units_part(rows, team.rank, team.size);
    product_part<T>(kernels_, own, {in, task.depth, 0}, {out, task.outputs, 0}, share);
  };
  const double ns = least_ns(flops, kernels_.lanes, workers);
  if (workers == 1 || !suits_crew(ns) || region_threads_awake()) return parallel(workers, part);
  crew_->share(workers, ns, [&](int rank) { part({rank, workers, nullptr}); });
}

template <class T>
void Dense<T>::run(const T* x, T* y, int rows, int threads) const {
  if (!forward_ready_ && reads_unpacked(rows)) return run_unpacked(x, y, rows, threads);
  pack_forward();
  product(forward_task(), x, y, rows, threads);
}

template <class T>
void Dense<T>::run_unpacked(const T* x, T* y, int rows, int threads) const {
  if (rows > kernels_.sum_rows) return run_by_pieces(x, y, rows, threads);
  const int pitch = padded(output_);
  T *sums = nullptr, *bias = nullptr;  // [N][pitch], [pitch]
  const Loan memory = carved(pool_, [&](Arena& arena) {
    sums = arena.take<T>(size_t(rows), size_t(pitch)), bias = arena.take<T>(size_t(pitch));
  });
  pack_bias(bias);
  RowStep<T> steps[kMostSumRows] = {};
  for (int i = 0; i < rows; ++i) steps[i].x = x + ptrdiff_t(i) * input_;
  UnpackedTask<T> task = {};
  task.input = input_, task.hidden = output_, task.pitch = pitch;
  task.w = raw_, task.bias = bias, task.accumulators = 1;
  task.hidden_gate[0] = -1;
  task.rows = steps, task.count = rows, task.sums = sums;
  parallel(weight_bytes() < kWorthReadingTogether ? 1 : threads,
           [&](const Team& team) { kernels_.unpacked_sums(task, team.rank, team.size); });
  for (int i = 0; i < rows; ++i) std::copy_n(sums + ptrdiff_t(i) * pitch, output_, y + ptrdiff_t(i) * output_);
}

template <class T>
void Dense<T>::run_by_pieces(const T* x, T* y, int rows, int threads) const {
  const Pieces pieces(kernels_, output_, 1, input_, threads);
  T *memory = nullptr, *bias = nullptr;  // [threads][values of a piece], [padded(O)]
  const Loan loan = carved(pool_, [&](Arena& arena) {
    memory = arena.take<T>(size_t(threads), pieces.values), bias = arena.take<T>(size_t(padded(output_)));
  });
  pack_bias(bias);
  parallel(threads, [&](const Team& team) {
    const int offset = 0;
    const Range mine = part_of(pieces.count, team.rank, team.size);
    for (int piece = int(mine.begin); piece < mine.end; ++piece) {
      T* const packed = memory + size_t(team.rank) * pieces.values - pieces.before(piece, input_);
      kernels_.pack_rows({raw_, 1, output_, input_, piece, pieces.count, packed, false});
      const ProductTask<T> task = {nullptr, nullptr, 1, input_, &offset, packed, bias, output_, false};
      product_part<T>(kernels_, task, {x, input_, 0}, {y, output_, 0}, units_part(rows, piece, pieces.count));
    }
  });
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
void Dense<T>::pack_backward() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (backward_ready_) return;
  if (!backward_block_.data()) {
    backward_block_ = Block(whole_vectors(kernels_, input_) * size_t(output_) * sizeof(T));
  }
  T* const packed = values<T>(backward_block_);
  kernels_.pack_columns({raw_, 1, input_, output_, 0, 1, packed, weight_bytes() > kMostPackedInCaches});
  backward_ready_ = true;
}

template <class T>
void Dense<T>::backward(const T* x, const T* dy, T* dx, T* dweight, T* dbias, int rows, int threads) const {
  const int workers = threads_for(2.0 * rows * input_ * output_, kernels_.lanes, threads);
  static_assert(kOuterScratch<T> * sizeof(T) % kAlign == 0, "each thread's begins a cache line");
  const T** b = nullptr;                  // [N] rows of x
  T *scratch = nullptr, *sums = nullptr;  // [threads][kOuterScratch], [O]
  const Loan work = carved(pool_, [&](Arena& arena) {
    b = arena.take<const T*>(size_t(rows));
    scratch = arena.take<T>(size_t(workers), kOuterScratch<T>);
    sums = arena.take<T>(size_t(output_));
  });
  if (dx) {
    const int offset = 0;
    ProductTask<T> task = {nullptr, nullptr, 1, output_, &offset, nullptr, nullptr, input_, false};
    if (!backward_ready_ && reads_unpacked(rows)) {
      task.unpacked = raw_;
    } else {
      pack_backward();
      task.packed = values<T>(backward_block_);
    }
    product(task, dy, dx, rows, workers, scratch);
  }
  if (rows == 0) {
    std::fill_n(dweight, ptrdiff_t(output_) * input_, T(0));
    if (dbias) std::fill_n(dbias, output_, T(0));
    return;
  }
  for (ptrdiff_t i = 0; i < rows; ++i) b[i] = x + i * input_;
  parallel(workers, [&](const Team& team) {
    const int column = 0;
    OuterTask<T> task = {};
    task.a = dy, task.a_step = output_, task.gate_column = &column, task.hidden = output_;
    const Range mine = part_of(output_, team.rank, team.size);
    task.row_begin = int(mine.begin), task.row_end = int(mine.end);
    const OuterRight<T> right = {b, input_, dweight};
    task.rows = rows, task.right = &right, task.rights = 1;
    task.bytes = sizeof(T) * size_t(output_) * size_t(input_);
    task.scratch = scratch + size_t(team.rank) * kOuterScratch<T>;
    if (dbias) unpadded_column_sums(dy, output_, rows, task.row_begin, task.row_end, sums, dbias);
    kernels_.outer(task);
  });
}

template class Dense<float>;
template class Dense<double>;

}  // namespace fastrnn
