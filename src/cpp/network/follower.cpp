#include "network/follower.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "network/unpacked.h"
#include "plan/plan.h"
#include "system/hash.h"

namespace fastrnn {
namespace {

constexpr int kMostTaken = 4;                 // passes by weights where they lie before these are packed
constexpr size_t kPiece = size_t(128) << 10;  // bytes a thread takes at a time

struct Piece {
  const char* data;
  size_t bytes;
};

template <class T>
std::vector<Piece> pieces_of(const Config& c, int gates, const T* const* weights) {
  std::vector<Piece> pieces;
  each_weight(c, gates, [&](int64_t rows, int64_t columns) {
    const char* const bytes = reinterpret_cast<const char*>(*weights++);
    const size_t all = size_t(rows) * size_t(columns ? columns : 1) * sizeof(T);
    for (size_t at = 0; at < all; at += kPiece) pieces.push_back({bytes + at, std::min(kPiece, all - at)});
  });
  return pieces;
}

// The same for any number of threads.
uint64_t fingerprint_of(const std::vector<Piece>& pieces, const Backend& backend, int threads) {
  size_t bytes = 0;
  for (const Piece& p : pieces) bytes += p.bytes;
  std::vector<uint64_t> prints(pieces.size());
  parallel(bytes < kWorthReadingTogether ? 1 : std::min(threads, int(pieces.size())), [&](const Team& team) {
    for (size_t i = size_t(team.rank); i < pieces.size(); i += size_t(team.size)) {
      prints[i] = backend.fingerprint(pieces[i].data, pieces[i].bytes);
    }
  });
  uint64_t all = pieces.size();
  for (const uint64_t print : prints) all = hash(all ^ print);
  return all;
}

}  // namespace

template <class T>
std::shared_ptr<const Network<T>> Follower<T>::follow(const Backend& backend, const T* const* weights, int64_t steps,
                                                      int batch, int threads) {
  const int gates = kernels_of<T>(backend).cells[int(config_.cell)].gates;
  const uint64_t print = fingerprint_of(pieces_of(config_, gates, weights), backend, threads);
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool same_backend = network_ && &network_->backend() == &backend;
  // A network reads its raw weights again when it first packs for backward: they must be where they were.
  if (same_backend && print == fingerprint_ && std::equal(weights_.begin(), weights_.end(), weights)) return network_;
  // Nobody can come to hold it while the lock is ours.
  const bool in_place = same_backend && network_.use_count() == 1;
  std::atomic_thread_fence(std::memory_order_acquire);
  auto network = in_place ? network_ : std::make_shared<Network<T>>(config_, backend);
  network_.reset();  // should packing fail, there is none
  network->pack(weights, network->packing_threads(Use::training, steps, batch, threads));
  weights_.assign(weights, weights + config_.weight_count());
  fingerprint_ = print;
  network_ = network;
  ++packings_;
  return network;
}

// A few values of each weight, which an optimizer changes all.
template <class T>
bool Follower<T>::changed(const Backend& backend, const T* const* weights) {
  constexpr int64_t samples = 16;
  const int gates = kernels_of<T>(backend).cells[int(config_.cell)].gates;
  uint64_t print = 0;
  each_weight(config_, gates, [&](int64_t rows, int64_t columns) {
    const T* const values = *weights++;
    const int64_t count = rows * std::max<int64_t>(1, columns);
    for (int64_t i = 0; i < samples; ++i) {
      uint64_t bits = 0;
      std::memcpy(&bits, values + count * i / samples, sizeof(T));
      print = hash(print ^ bits);
    }
  });
  const std::lock_guard<std::mutex> lock(mutex_);
  repeats_ = print == sampled_ ? repeats_ + 1 : 0;
  sampled_ = print;
  return repeats_ < kMostTaken;
}

template <class T>
void Follower<T>::run(const Backend& backend, const T* const* weights, const Sequence<T>& call) {
  if (fits_one_group(config_, backend, call)) return run_unpacked(config_, backend, weights, call, pool_);
  follow(backend, weights, call.steps, call.batch, call.threads)->run(call);
}

template <class T>
void Follower<T>::forward_unpacked(const Backend& backend, const T* const* weights, const Sequence<T>& call,
                                   char* reserve) {
  Tape<T> tape(config_, call, true);
  Arena arena(reserve);
  tape.lay_out(arena, config_, kernels_of<T>(backend).cells[int(config_.cell)]);
  fastrnn::forward_unpacked(config_, backend, weights, tape, pool_);
}

template <class T>
void Follower<T>::backward_unpacked(const Backend& backend, const T* const* weights, const Sequence<T>& call,
                                    const char* reserve, const Gradients<T>& gradients) {
  std::unique_ptr<Network<T>> network;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    network.swap(spare_);
  }
  if (!network || &network->backend() != &backend) network = std::make_unique<Network<T>>(config_, backend);
  network->take(weights);
  network->backward(call, reserve, gradients);
  const std::lock_guard<std::mutex> lock(mutex_);
  network.swap(spare_);
}

template class Follower<float>;
template class Follower<double>;

}  // namespace fastrnn
