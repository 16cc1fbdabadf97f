// A network with weights and a sequence, made from integers alone so that every machine makes the same.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "network/network.h"
#include "registry.h"

namespace fastrnn::tests {

struct Shape {
  const char* name;
  Config config;
  int steps, batch;
  bool ragged;
  bool forward_only = false;  // 2,000 chaotic steps leave no finite gradient
};

const std::vector<Shape>& shapes();

// Numbers of threads that passes are repeated with. Under sanitizers, where each takes ten times as long, all that is
// computed in another place or order by more than one is seen with three.
#ifdef FASTRNN_SANITIZED
constexpr int kThreads[] = {1, 3};
#else
constexpr int kThreads[] = {1, 2, 3, 4};
#endif

template <class T>
struct Problem {
  explicit Problem(const Shape& shape, double gain = 0.5);

  std::unique_ptr<Network<T>> network(const Backend& backend, const Core* core = nullptr) const;
  Sequence<T> sequence(int threads);  // writes y, hn, cn of this problem
  Gradients<T> gradients(int threads);
  const CellKernels<T>& cell() const { return kernels_of<T>(current_backend()).cells[int(shape.config.cell)]; }

  Shape shape;
  std::vector<std::vector<T>> weights, dweights;
  std::vector<T> x, h0, c0, y, hn, cn, dy, dh, dc, dx, dh0, dc0;
  std::vector<double> norms;
  std::vector<int64_t> lengths;
  std::vector<T*> weight_pointers, dweight_pointers;
};

template <class T>
uint64_t hash_of(const std::vector<T>& values, uint64_t seed = 14695981039346656037u);  // FNV-1a of the bytes

// Of all that a pass and the one back have written.
template <class T>
uint64_t results_hash(const Problem<T>& p);

// Everything a pass gives, in one hash.
template <class T>
uint64_t pass_hash(const Shape& shape, const Backend& backend, int threads, double gain = 0.5,
                   const Core* core = nullptr);

std::vector<const Backend*> usable_backends();

}  // namespace fastrnn::tests
