// Whole sequences: inference, and training forward and backward.
#include <cstddef>
#include <cstring>
#include <new>

#include "api/handles.h"
#include "system/limits.h"

namespace fastrnn {
namespace {

constexpr size_t kFirstSequence = offsetof(fastrnn_sequence, threads) + sizeof(int32_t);
constexpr size_t kFirstGradients = offsetof(fastrnn_gradients, threads) + sizeof(int32_t);
constexpr size_t kWithStepNorms = offsetof(fastrnn_gradients, step_norms) + sizeof(void*);

// A [T, B, n] array of the caller's.
template <class T>
Rows<T> rows_of(T* data, ptrdiff_t step, ptrdiff_t row, int64_t steps, int batch, int n, bool written,
                const std::string& name) {
  if (steps == 0 || batch == 0) return {data, 0, 0};
  need(data, name.c_str());
  need_aligned<T>(data, name.c_str());
  const Strides found = judge(step, row, steps, batch, n, written);
  if (found == Strides::good) return {data, step, row};
  const std::string names = name + "_step, " + name + "_row: ",
                    got = std::to_string(step) + " and " + std::to_string(row);
  if (found == Strides::negative) refuse(names + "expected strides that are not negative, got " + got);
  if (found == Strides::too_far) refuse(names + "expected strides within the address space, got " + got);
  refuse(names + "expected rows of " + std::to_string(n) + " elements that do not overlap, got strides of " + got);
}

// Bytes of a pass at most; sizes that no address space holds are refused before they overflow.
void check_size(const Config& c, int64_t steps, int batch, size_t element) {
  const double widest = double(padded(c.hidden)) + padded(c.width()) + 16;
  if (10.0 * double(steps) * batch * c.sweeps() * widest * double(element) > kAddressable / 8) throw std::bad_alloc();
}

template <class T>
const Typed<T>& typed_of(const fastrnn_layer& layer) {
  return std::get<Typed<T>>(layer.typed);
}

// Where a final state goes that nobody wants.
template <class T>
struct Unwanted {
  std::vector<T> h, c;
};

template <class T>
Sequence<T> checked(const fastrnn_layer& layer, const fastrnn_sequence& s, Unwanted<T>& unwanted) {
  if (s.size < kFirstSequence) refuse("sequence: its size is not set to sizeof(fastrnn_sequence)");
  need_ready(layer);
  const Config& c = layer.config;
  const int64_t steps = within(s.steps, 0, kMaxSteps, "steps");
  const int batch = within(s.batch, 0, kMaxBatch, "batch");
  need_aligned<int64_t>(s.lengths, "lengths");
  for (int64_t i = 0; s.lengths && i < batch; ++i) {
    if (s.lengths[i] >= 0 && s.lengths[i] <= steps) continue;
    refuse("lengths: expected from 0 to " + std::to_string(steps) + ", got " + std::to_string(s.lengths[i]) +
           " for row " + std::to_string(i));
  }
  check_size(c, steps, batch, sizeof(T));
  const bool lstm = typed_of<T>(layer).network->cell().has_cell_state;
  if (!lstm && (s.c0 || s.cn)) refuse("c0, cn: expected NULL, only an LSTM has a cell state");
  Sequence<T> call = {};
  call.steps = steps, call.batch = batch, call.lengths = s.lengths, call.threads = check_threads(s.threads);
  call.x = rows_of(static_cast<const T*>(s.x), s.x_step, s.x_row, steps, batch, c.input, false, "x");
  call.y = rows_of(static_cast<T*>(s.y), s.y_step, s.y_row, steps, batch, c.width(), true, "y");
  call.h0 = static_cast<const T*>(s.h0), call.c0 = static_cast<const T*>(s.c0);
  call.hn = static_cast<T*>(s.hn), call.cn = static_cast<T*>(s.cn);
  need_aligned<T>(s.h0, "h0"), need_aligned<T>(s.c0, "c0"), need_aligned<T>(s.hn, "hn"), need_aligned<T>(s.cn, "cn");
  const size_t states = size_t(c.sweeps()) * size_t(batch);
  if (!call.hn) unwanted.h.resize(states * size_t(c.output()) + 1), call.hn = unwanted.h.data();
  if (lstm && !call.cn) unwanted.c.resize(states * size_t(c.hidden) + 1), call.cn = unwanted.c.data();
  return call;
}

template <class T>
void run(const fastrnn_layer& layer, const fastrnn_sequence& sequence) {
  Unwanted<T> unwanted;
  const Sequence<T> call = checked<T>(layer, sequence, unwanted);  // before the network is there, this throws
  typed_of<T>(layer).network->run(call);
}

template <class T>
std::unique_ptr<fastrnn_tape> forward(const fastrnn_layer& layer, const fastrnn_sequence& sequence) {
  Unwanted<T> unwanted;
  auto made = std::make_unique<fastrnn_tape>();
  const Sequence<T> call = checked<T>(layer, sequence, unwanted);
  auto tape = typed_of<T>(layer).network->forward(call);
  tape->call.lengths = nullptr, tape->call.hn = tape->call.cn = nullptr;  // they end with this call
  made->tape = std::move(tape);
  made->prepared = layer.prepared;
  return made;
}

// Pointer i of an array of them. The C++ header hands over an array of T*, which no void* may be read from.
template <class T>
T* pointer_at(void* const* pointers, size_t i) {
  T* pointer;
  std::memcpy(&pointer, pointers + i, sizeof pointer);
  return pointer;
}

template <class T>
void backward(const fastrnn_layer& layer, const Tape<T>& tape, const fastrnn_gradients& g) {
  const Config& c = layer.config;
  const int64_t steps = tape.call.steps;
  const int batch = tape.call.batch;
  const bool lstm = typed_of<T>(layer).network->cell().has_cell_state;
  if (!lstm && (g.dcn || g.dc0)) refuse("dcn, dc0: expected NULL, only an LSTM has a cell state");
  need(g.weights, "weights");
  std::vector<T*> weights;
  for (size_t i = 0; i < layer.parameters.size(); ++i) {
    weights.push_back(pointer_at<T>(g.weights, i));
    need(weights[i], layer.parameters[i].name.c_str());
    need_aligned<T>(weights[i], layer.parameters[i].name.c_str());
  }
  Gradients<T> call = {};
  if (g.dy) call.dy = rows_of(static_cast<const T*>(g.dy), g.dy_step, g.dy_row, steps, batch, c.width(), false, "dy");
  if (g.dx) call.dx = rows_of(static_cast<T*>(g.dx), g.dx_step, g.dx_row, steps, batch, c.input, true, "dx");
  need_aligned<T>(g.dhn, "dhn"), need_aligned<T>(g.dcn, "dcn"), need_aligned<T>(g.dh0, "dh0");
  need_aligned<T>(g.dc0, "dc0");
  call.dh = static_cast<const T*>(g.dhn), call.dc = static_cast<const T*>(g.dcn);
  call.dh0 = static_cast<T*>(g.dh0), call.dc0 = static_cast<T*>(g.dc0);
  call.weights = weights.data();
  call.threads = check_threads(g.threads);
  if (g.size >= kWithStepNorms) {
    need_aligned<double>(g.step_norms, "step_norms");
    call.step_norms = g.step_norms;
  }
  typed_of<T>(layer).network->backward(tape, call);
}

}  // namespace
}  // namespace fastrnn

using namespace fastrnn;

fastrnn_status fastrnn_layer_run(const fastrnn_layer* layer, const fastrnn_sequence* sequence,
                                 fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(layer, "layer"), need(sequence, "sequence");
    layer->dtype() ? run<double>(*layer, *sequence) : run<float>(*layer, *sequence);
  });
}

fastrnn_status fastrnn_layer_forward(const fastrnn_layer* layer, const fastrnn_sequence* sequence, fastrnn_tape** out,
                                     fastrnn_error* error) noexcept {
  return making(out, error, [&] {
    need(layer, "layer"), need(sequence, "sequence");
    return layer->dtype() ? forward<double>(*layer, *sequence) : forward<float>(*layer, *sequence);
  });
}

fastrnn_status fastrnn_layer_backward(const fastrnn_layer* layer, const fastrnn_tape* tape,
                                      const fastrnn_gradients* gradients, fastrnn_error* error) noexcept {
  return guarded(error, [&] {
    need(layer, "layer"), need(tape, "tape"), need(gradients, "gradients");
    if (gradients->size < kFirstGradients) refuse("gradients: its size is not set to sizeof(fastrnn_gradients)");
    need_ready(*layer);
    if (tape->prepared != layer->prepared) {
      refuse("tape: expected one that this layer made since it was last prepared");
    }
    if (layer->dtype()) {
      backward<double>(*layer, *std::get<1>(tape->tape), *gradients);
    } else {
      backward<float>(*layer, *std::get<0>(tape->tape), *gradients);
    }
  });
}

void fastrnn_tape_free(fastrnn_tape* tape) noexcept { delete tape; }
