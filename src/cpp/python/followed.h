// Packed weights of tensors: those that follow them, and those that are held.
#pragma once

#include <memory>
#include <variant>

#include "network/follower.h"
#include "python/bind.h"
#include "python/given.h"
#include "python/unlocked.h"
#include "registry.h"

namespace fastrnn {

struct AnyFollower : Zeroed {
  explicit AnyFollower(const Config& c) : config(c), f32(c), f64(c) {}

  template <class T>
  Follower<T>& of() {
    if constexpr (sizeof(T) == 4) {
      return f32;
    } else {
      return f64;
    }
  }

  const Config config;
  Follower<float> f32;
  Follower<double> f64;
};

// The network of a pass forward, packed for backward too: it keeps what the weights were.
struct Lease : Zeroed {
  std::variant<std::shared_ptr<const Network<float>>, std::shared_ptr<const Network<double>>> network;
};

// The memory of a weight, alive as long as this: `weight.data = other` takes a tensor elsewhere, and what comes to lie
// where it was would be taken for it. A pointer that torch moves (share_memory_) is followed.
class Memory {
 public:
  Memory(py::handle weight, const void* at, size_t bytes, Name name)
      : storage_(weight.attr("untyped_storage")()), offset_(reinterpret_cast<uintptr_t>(at) - start()), bytes_(bytes) {
    if (!data()) throw py::value_error(name.str() + ": expected a tensor without gaps");
  }

  size_t bytes() const { return bytes_; }
  // null where it has become too small
  const char* data() const {
    const auto all = storage_.attr("nbytes")().cast<size_t>();
    return offset_ <= all && bytes_ <= all - offset_ ? reinterpret_cast<const char*>(start() + offset_) : nullptr;
  }

 private:
  uintptr_t start() const { return storage_.attr("data_ptr")().cast<uintptr_t>(); }

  py::object storage_;
  size_t offset_, bytes_;
};

// Weights of which the caller promises that they stay as they are, packed once.
template <class T>
struct FixedWeights {
  GivenWeights<T> weights;
  std::shared_ptr<const Network<T>> network;
};

struct Fixed : Zeroed {
  std::variant<std::unique_ptr<FixedWeights<float>>, std::unique_ptr<FixedWeights<double>>> weights;
  const Backend* backend;  // whose fingerprints these are
  std::vector<Memory> memory;
  std::vector<uint64_t> prints;

  // Their network, null where these weights are not they.
  template <class T>
  const Network<T>* network_of(const GivenWeights<T>& given, const Backend& wanted) const {
    const auto* const fixed = std::get_if<std::unique_ptr<FixedWeights<T>>>(&weights);
    if (!fixed || !*fixed || &wanted != backend || (*fixed)->weights.at() != given.at()) return nullptr;
    return (*fixed)->network.get();
  }

  // Of the contents that the weights have now; 0 for one whose memory has become too small.
  std::vector<uint64_t> prints_now() const {
    std::vector<const char*> data;
    for (const Memory& m : memory) data.push_back(m.data());
    std::vector<uint64_t> now(data.size());
    const Unlocked unlocked;
    for (size_t i = 0; i < data.size(); ++i) now[i] = data[i] ? backend->fingerprint(data[i], memory[i].bytes()) : 0;
    return now;
  }

  // The numbers of the weights whose contents are not what they were.
  std::vector<size_t> changed() const {
    const std::vector<uint64_t> now = prints_now();
    std::vector<size_t> found;
    for (size_t i = 0; i < now.size(); ++i) {
      if (now[i] != prints[i]) found.push_back(i);
    }
    return found;
  }
};

// Packs what the weights hold now.
template <class T>
std::unique_ptr<Fixed> fixed_weights(AnyFollower& any, const py::sequence& given, int threads) {
  const Backend& backend = current_backend();
  const int gates = kernels_of<T>(backend).cells[int(any.config.cell)].gates;
  const py::tuple held(given);
  GivenWeights<T> weights(any.config, gates, held);
  auto fixed = std::make_unique<Fixed>();
  fixed->backend = &backend;
  each_weight(any.config, gates, [&](int64_t rows, int64_t columns) {
    const size_t i = fixed->memory.size();
    fixed->memory.emplace_back(held[i], weights.at()[i], size_t(rows * (columns ? columns : 1)) * sizeof(T),
                               Name{"weights", int(i)});
  });
  fixed->prints = fixed->prints_now();
  std::shared_ptr<const Network<T>> network;
  {
    const Unlocked unlocked;
    network = any.of<T>().follow(backend, weights.data(), 1, 1, threads);
  }
  fixed->weights = std::make_unique<FixedWeights<T>>(FixedWeights<T>{std::move(weights), std::move(network)});
  return fixed;
}

inline std::unique_ptr<Fixed> fix(AnyFollower& any, const py::sequence& weights, int threads) {
  const bool wide = py::len(weights) && tensor_of(weights[0], {"weights", 0}).bits() == 64;
  return wide ? fixed_weights<double>(any, weights, threads) : fixed_weights<float>(any, weights, threads);
}

}  // namespace fastrnn
