// A stack of recurrent layers: packed weights, and the passes over a sequence. Knows threads, directions and memory, no
// vectors. Letters as in tasks.h; D directions, L layers. All arrays are float or double.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "network/config.h"
#include "network/crew.h"
#include "network/memory.h"
#include "network/plan.h"
#include "network/schedule.h"
#include "network/threads.h"
#include "network/weights.h"

namespace fastrnn {

// Arguments of a pass. Sizes follow from the network's Config.
template <class T>
struct Sequence {
  int64_t steps;
  int batch;
  const int64_t* lengths;  // [B] each in [0, T], or null
  Rows<const T> x;         // [T, B, I]
  const T* h0;             // [L*D, B, P], or null: zeros
  const T* c0;             // [L*D, B, H], or null
  Rows<T> y;               // [T, B, D*P], written whole
  T* hn;                   // [L*D, B, P]
  T* cn;                   // [L*D, B, H]; LSTM alone
  double dropout;          // between layers; 0: off
  uint64_t seed;           // of its mask
  int threads;
  bool regions = false;  // threads come from OpenMP alone: the caller's own spin in regions of the same run-time
};

template <class T>
struct Gradients {
  Rows<const T> dy;   // [T, B, D*P], data null: zeros
  const T* dh;        // [L*D, B, P], or null
  const T* dc;        // [L*D, B, H], or null
  Rows<T> dx;         // [T, B, I], data null: not wanted
  T* dh0;             // [L*D, B, P], or null: not wanted
  T* dc0;             // [L*D, B, H], or null
  T* const* weights;  // as in Network::pack, written whole; null: not wanted
  int threads;
};

// What one direction of one layer keeps of a pass.
template <class T>
struct Trace {
  T* h0;           // [B, P] by batch row
  T* cell;         // [B][pitch] by place: c before the first step
  T* gates;        // [rows][saved][pitch], null without a tape; so are the next two
  T* tape_cell;    // [rows][pitch]
  T* unprojected;  // [rows][pitch] with a tape, else [B][pitch]
};

// The memory of a pass. With a tape it holds what BPTT needs; x and y stay the caller's and must not change.
template <class T>
struct Tape {
  Tape(const Sequence<T>& sequence, bool keep)
      : order(sequence.steps, sequence.batch, sequence.lengths), call(sequence), keeps(keep) {}

  RowOrder order;
  Sequence<T> call;
  bool keeps;
  std::vector<Trace<T>> parts;        // [L*D]
  std::vector<Rows<T>> outputs;       // [L] of each layer; the last is call.y
  std::vector<Rows<const T>> inputs;  // [L] of each layer, after dropout; the first is call.x
  std::shared_ptr<Pool> pool;
  Loan memory;
};

template <class T>
class Network {
 public:
  // For this machine's core, or another one that is to be planned for.
  Network(const Config& config, const Backend& backend, const Core* core = nullptr);

  // weights in torch's order, part after part: weight_ih, weight_hh, [bias_ih, bias_hh], [weight_hr]. They must live,
  // unchanged, until the next pack or pack_backward: the first backward packs their transposes otherwise.
  void pack(const T* const* weights, int threads = 1);

  // Packs the transposes now, so that the raw weights may change before backward.
  void pack_backward(int threads) const;
  // How many of `threads` should pack for a pass to come: all while cores are near each other, else as many as the pass
  // takes, since each then multiplies with what it has packed itself.
  int packing_threads(Use use, int64_t steps, int batch, int threads) const;

  void run(const Sequence<T>& call) const;
  std::unique_ptr<Tape<T>> forward(const Sequence<T>& call) const;
  void backward(const Tape<T>& tape, const Gradients<T>& call) const;

  // The same for a caller who keeps the tape in memory of its own, aligned to kAlign: `reserve` holds nothing but
  // numbers. backward reads x, y, lengths, dropout and seed of its call; they must be those of forward.
  void forward(const Sequence<T>& call, char* reserve) const;
  void backward(const Sequence<T>& call, const char* reserve, const Gradients<T>& gradients) const;
  size_t reserve_bytes(const Sequence<T>& call) const;

  Plan plan(int layer, int64_t steps, int batch, int64_t rows, int threads, Use use, double distance = 0) const;
  Crew& crew() const { return *crew_; }
  // body(team) for each of a plan's threads, in a region or by the crew; ns: roughly what all of it takes.
  template <class Body>
  void spread(const Plan& plan, double ns, Body& body) const {
    if (!plan.by_crew || region_threads_awake()) return parallel(plan.threads, body);
    if (plan.split == Split::units) return crew_->gather(plan.threads, ns, body);
    crew_->share(plan.threads, ns, [&](int part) { body({part, plan.threads, nullptr}); });
  }
  const Config& config() const { return config_; }
  const Backend& backend() const { return backend_; }
  const Kernels<T>& kernels() const { return kernels_of<T>(backend_); }
  const CellKernels<T>& cell() const { return kernels().cells[int(config_.cell)]; }
  const PackedWeights<T>& weights(int part) const { return packed_[size_t(part)]; }
  ForwardTask<T> forward_task(int part) const;  // its sizes and weights; the rest is the caller's
  size_t packed_bytes() const { return forward_block_.bytes(); }

 private:
  Tape<T> make_tape(const Sequence<T>& call, bool keeps) const;
  void pass(Tape<T>& tape) const;
  // pack(packed, input, raw, team) for each part, by every thread of a team.
  template <class Pack>
  void pack_all(int threads, Pack pack) const;
  RawWeights<T> raw(int part) const;

  Config config_;
  const Backend& backend_;
  Core core_;  // measured where the weights do not lie in its own caches
  std::vector<const T*> raw_;
  Block forward_block_;
  std::shared_ptr<Pool> pool_;
  std::shared_ptr<Crew> crew_;
  // Filled by the first backward, behind the lock.
  mutable std::mutex mutex_;
  mutable bool backward_ready_ = false;
  mutable Block backward_block_;
  mutable std::vector<PackedWeights<T>> packed_;
};

// Copies [B, n] rows given by batch row into places, and back.
template <class T>
void to_places(const RowOrder& order, const T* rows, int n, T* places, int pitch) {
  for (int place = 0; place < order.batch(); ++place) {
    T* const out = places + ptrdiff_t(place) * pitch;
    if (rows) std::copy_n(rows + ptrdiff_t(order.row(place)) * n, n, out);
    std::fill_n(out + (rows ? n : 0), pitch - (rows ? n : 0), T(0));
  }
}

template <class T>
void from_places(const RowOrder& order, const T* places, int pitch, int n, T* rows) {
  for (int place = 0; place < order.batch(); ++place) {
    std::copy_n(places + ptrdiff_t(place) * pitch, n, rows + ptrdiff_t(order.row(place)) * n);
  }
}

// All of `rows` rows and this thread's part of the units, for threads that meet at every step.
Share share_units(int rows, const Team& team);

// This thread's part of the places and units of a team.
Share share_of(Split split, const RowOrder& order, const Team& team);

}  // namespace fastrnn
