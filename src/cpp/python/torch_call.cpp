#include "python/torch_call.h"

#include <algorithm>

#include "python/checks.h"
#include "python/refuse.h"

namespace fastrnn {
namespace {

constexpr Axes kAxes[] = {{3, 0, 1}, {3, 1, 0}, {2, 0, -1}, {2, -1, 0}, {2, -1, -1}};  // by Layout

Layout layout_of(py::handle value) {
  const auto layout = value.cast<int64_t>();
  if (layout < kTime || layout > kPacked) {
    throw py::value_error("layout: expected 0 to 4, got " + std::to_string(layout));
  }
  return Layout(layout);
}

Tensor batch_sizes_of(py::handle object) {
  Tensor sizes = tensor_of(object, {"batch_sizes"});
  check<int64_t>(sizes, {"batch_sizes"}, {1, {sizes.dims() == 1 ? sizes.size(0) : 0}});
  if (!sizes.contiguous() || sizes.size(0) == 0) {
    throw py::value_error("batch_sizes: expected a contiguous tensor of at least one step, got shape " +
                          sizes.shape_text());
  }
  return sizes;
}

// The rows of the first step. A recorded call does not know them: they would be those of its recording for ever.
int64_t batch_of(const Tensor& sizes, int64_t asked) {
  const int64_t first = *sizes.data<int64_t>();
  if (first < 1) {
    throw py::value_error("batch_sizes: expected values of at least 1, got " + std::to_string(first) + " at step 0");
  }
  if (asked != -1 && asked != first) {
    throw py::value_error("batch: expected " + std::to_string(first) + ", the first of batch_sizes, or -1, got " +
                          std::to_string(asked));
  }
  return first;
}

uint64_t seed_of(py::handle object) {
  if (object.is_none()) throw py::value_error("seed: expected an int64 tensor with dropout > 0, got None");
  const Tensor seed = tensor_of(object, {"seed"});
  check<int64_t>(seed, {"seed"}, {1, {1}});
  return uint64_t(*seed.data<int64_t>());
}

}  // namespace

TorchCall::TorchCall(const py::tuple& t, int asked)
    : layout(layout_of(t[0])),
      batch(t[1].cast<int64_t>()),
      dropout(checked_dropout(t[2].cast<double>())),
      threads(threads_of(asked)) {
  if ((layout == kPacked) == t[3].is_none()) {
    throw py::value_error("batch_sizes: expected with layout 4 (packed), and only then, got " + type_name(t[3]) +
                          " with layout " + std::to_string(layout));
  }
  if (layout == kPacked) {
    batch_sizes = batch_sizes_of(t[3]);
    batch = batch_of(*batch_sizes, batch);
  }
  if (!t[5].is_none()) {
    if (layout != kTime && layout != kBatch) {
      throw py::value_error("lengths: expected None, but for a padded batch [T, B, input] or [B, T, input], got " +
                            type_name(t[5]) + " with layout " + std::to_string(layout));
    }
    lengths = tensor_of(t[5], {"lengths"});
  }
  if (dropout > 0) seed = seed_of(t[4]);
}

Axes TorchCall::axes() const { return kAxes[layout]; }

Tensor input_of(py::handle object, const Config& config, const TorchCall& call) {
  Tensor x = tensor_of(object, {"input"});
  if (!x.is(Tensor::Kind::floating, 32) && !x.is(Tensor::Kind::floating, 64)) {
    throw py::type_error("input: expected torch.float32 or torch.float64, got " + x.dtype_text());
  }
  const int dims = call.axes().dims;
  if (x.dims() != dims || x.size(dims - 1) != config.input) {
    throw py::value_error("input: expected " + std::to_string(dims) + " axes, the last " +
                          std::to_string(config.input) + ", got " + x.shape_text());
  }
  return x.dense_rows({"input"}, call.layout == kPacked);
}

std::vector<int64_t> padded_lengths(const Tensor& lengths, int64_t steps, int64_t batch) {
  check<int64_t>(lengths, {"lengths"}, {1, {batch}});
  const Tensor dense = lengths.dense({"lengths"});
  return checked_lengths(dense.data<int64_t>(), steps, batch);
}

std::vector<int64_t> packed_lengths(const TorchCall& call, int64_t rows) {
  const int64_t* const sizes = call.batch_sizes->data<int64_t>();
  std::vector<int64_t> lengths(size_t(std::min(call.batch, rows)), 0);
  int64_t last = call.batch, sum = 0;
  for (int64_t t = 0; t < call.batch_sizes->size(0); ++t) {
    // Once: another thread may write to them. The first has been read before, and there are places for so many rows.
    const int64_t size = sizes[t], least = t ? 1 : call.batch;
    if (size < least || size > last) {
      throw py::value_error("batch_sizes: expected values from " + std::to_string(call.batch) +
                            " downwards to 1, got " + std::to_string(size) + " at step " + std::to_string(t));
    }
    if (size > rows - sum) {  // before it is added: the sum may not fit
      throw py::value_error("batch_sizes: expected a sum of " + std::to_string(rows) +
                            ", the rows of data, got more: " + std::to_string(size) + " at step " + std::to_string(t) +
                            " after a sum of " + std::to_string(sum));
    }
    last = size, sum += size;
    for (int64_t row = 0; row < size; ++row) ++lengths[size_t(row)];
  }
  if (sum != rows) {
    throw py::value_error("batch_sizes: expected a sum of " + std::to_string(rows) + ", the rows of data, got " +
                          std::to_string(sum));
  }
  return lengths;
}

}  // namespace fastrnn
