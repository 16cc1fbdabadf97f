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
  explicit AnyFollower(const Config& c) : config(c) {}

  template <class T>
  Follower<T>& of() {
    if constexpr (sizeof(T) == 4) {
      return f32;
    } else {
      return f64;
    }
  }

  Config config;
  Follower<float> f32;
  Follower<double> f64;
};

// The network of a pass forward, packed for backward too: it keeps what the weights were.
struct Lease : Zeroed {
  std::variant<std::shared_ptr<const Network<float>>, std::shared_ptr<const Network<double>>> network;
};

// Weights of which the caller promises that they stay as they are, packed once. It keeps the tensors, so that nothing
// else comes to lie where they do.
template <class T>
struct FixedWeights {
  GivenWeights<T> weights;
  std::shared_ptr<const Network<T>> network;
};

struct Fixed : Zeroed {
  std::variant<std::unique_ptr<FixedWeights<float>>, std::unique_ptr<FixedWeights<double>>> weights;

  // Their network, null where these weights are not they.
  template <class T>
  const Network<T>* network_of(const GivenWeights<T>& given, const Backend& backend) const {
    const auto* const fixed = std::get_if<std::unique_ptr<FixedWeights<T>>>(&weights);
    if (!fixed || !*fixed || (*fixed)->weights.at() != given.at()) return nullptr;
    const Network<T>& network = *(*fixed)->network;
    return &network.backend() == &backend ? &network : nullptr;
  }
};

// Packs what the weights hold now.
template <class T>
std::unique_ptr<FixedWeights<T>> fixed_weights(AnyFollower& any, const py::sequence& given, int threads) {
  const Backend& backend = current_backend();
  GivenWeights<T> weights(any.config, kernels_of<T>(backend).cells[int(any.config.cell)].gates, given);
  std::shared_ptr<const Network<T>> network;
  {
    const Unlocked unlocked;
    network = any.of<T>().follow(any.config, backend, weights.data(), 1, 1, threads);
  }
  return std::make_unique<FixedWeights<T>>(FixedWeights<T>{std::move(weights), std::move(network)});
}

inline std::unique_ptr<Fixed> fix(AnyFollower& any, const py::sequence& weights, int threads) {
  auto fixed = std::make_unique<Fixed>();
  if (py::len(weights) && tensor_of(weights[0], {"weights", 0}).bits() == 64) {
    fixed->weights = fixed_weights<double>(any, weights, threads);
  } else {
    fixed->weights = fixed_weights<float>(any, weights, threads);
  }
  return fixed;
}

}  // namespace fastrnn
