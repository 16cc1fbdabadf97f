// The first calls of a process, which find the figures of the machine, under a program that traps all floating-point
// exceptions, inexact results among them: none is raised, and no flag is left; nor is a mode of the library's in
// threads that the program uses for regions of its own.
#include <cfenv>

#include "tests/api_check.h"

int fastrnn::tests::failures = 0;

namespace fastrnn::tests {
namespace {

constexpr int kSteps = 20, kBatch = 8, kInput = 16, kHidden = 64;

// The program's own arithmetic, before it traps any.
struct Given {
  std::vector<std::vector<float>> weights;
  std::vector<float> x = draw<float>(kSteps * kBatch * kInput, 1);
  std::vector<float> y = std::vector<float>(kSteps * kBatch * kHidden), dy = draw<float>(y.size(), 2);
  std::vector<std::vector<float>> dw;

  Given() {
    for (const size_t n : {4 * kHidden * kInput, 4 * kHidden * kHidden, 4 * kHidden, 4 * kHidden}) {
      weights.push_back(draw<float>(n, n, 0.5)), dw.emplace_back(n);
    }
  }
};

void everything(Given& given, int threads, const std::string& path) {
  Layer<float> layer = required(Layer<float>::make(config_of(Cell::lstm, kInput, kHidden)));
  for (size_t i = 0; i < layer.count(); ++i) {
    required(layer.set(required(layer.at(i)).name, given.weights[i].data(), given.weights[i].size()));
  }
  required(layer.prepare(threads));
  Sequence<float> s;
  s.steps = kSteps, s.batch = kBatch, s.threads = threads;
  s.x = given.x.data(), s.x_step = kBatch * kInput, s.x_row = kInput;
  s.y = given.y.data(), s.y_step = kBatch * kHidden, s.y_row = kHidden;
  required(layer.run(s));
  const Tape tape = required(layer.forward(s));
  Gradients<float> g;
  std::vector<float*> dw;
  for (auto& w : given.dw) dw.push_back(w.data());
  g.dy = given.dy.data(), g.dy_step = s.y_step, g.dy_row = s.y_row, g.weights = dw.data(), g.threads = threads;
  required(layer.backward(tape, g));
  Stream<float> stream = required(layer.stream(kBatch, threads));
  for (int i = 0; i < 100; ++i) required(stream.step(given.x.data(), given.y.data()));  // helpers start, and sleep
  required(stream.process(kSteps, s.x, s.x_step, s.x_row, s.y, s.y_step, s.y_row));
  StreamPool<float> pool = required(layer.pool(kBatch, threads));
  int64_t ids[kBatch];
  for (int64_t& id : ids) required(pool.join(&id));
  for (int i = 0; i < 100; ++i) required(pool.step(ids, kBatch, given.x.data(), given.y.data()));
  required(pool.process(ids, kBatch, kSteps, s.x, s.x_step, s.x_row, s.y, s.y_step, s.y_row));
  Linear<float> head = required(Linear<float>::make(kHidden, kInput));
  required(head.set(given.weights[0].data(), given.weights[2].data()));
  required(head.run(given.x.data(), given.y.data(), kSteps, threads));
  required(save(path.c_str(), {{"lstm.", layer}, {"head.", head}}));
  const Weights file = required(Weights::open(path.c_str()));
  std::remove(path.c_str());
  required(required(Layer<float>::load(file, "lstm.")).run(s));
  required(required(Linear<float>::load(file, "head.")).step(given.x.data(), given.y.data()));
  CHECK(available_threads() >= 1 && isa(), "no thread, or no kernels");
}

// Flush to zero, denormals are zero, masked traps: the mode of this thread without its flags.
unsigned mode() {
#if defined(__x86_64__)
  return __builtin_ia32_stmxcsr() & ~0x3fu;
#else
  return 0;
#endif
}

void check_modes(int threads) {
  const unsigned mine = mode();
  unsigned other = 0;
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads) reduction(| : other)
#endif
  other |= mode() ^ mine;
  CHECK(other == 0, "a thread of the program's is in another mode, by %x, after calls with %d", other, threads);
}

}  // namespace
}  // namespace fastrnn::tests

int main(int, char** arguments) {
  using namespace fastrnn::tests;
  Given given;
  std::feclearexcept(FE_ALL_EXCEPT);
#if defined(__GLIBC__)
  feenableexcept(FE_ALL_EXCEPT);
#endif
  for (const int threads : {1, 2}) {
    everything(given, threads, std::string(arguments[0]) + ".safetensors");
    check_modes(threads);
  }
  CHECK(std::fetestexcept(FE_ALL_EXCEPT) == 0, "the flags %d", std::fetestexcept(FE_ALL_EXCEPT));
  return failures != 0;
}
