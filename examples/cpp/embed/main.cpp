// A voice-activity-like head on a GRU: weights set by name, saved, loaded, then the same samples as one sequence and
// one at a time. Exit status 1 when anything fails or a bit differs.
#include <fastrnn/fastrnn.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr int kInput = 8, kHidden = 24, kSteps = 50;

int failed(const fastrnn::Error& error) {
  std::fprintf(stderr, "fastrnn: %s: %s\n", fastrnn::name(error.status()), error.message());
  return 1;
}

std::vector<float> wave(size_t n, double frequency) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = float(0.4 * std::sin(frequency * double(i + 1)));
  return values;
}

fastrnn::Result<void> save(const char* path) {
  fastrnn::Config config;
  config.cell = fastrnn::Cell::gru, config.input_size = kInput, config.hidden_size = kHidden;
  auto gru = fastrnn::Layer<float>::make(config);
  if (!gru) return gru.error();
  for (size_t i = 0; i < gru->count(); ++i) {
    const auto weight = gru->at(i);  // its name and shape: weight_ih_l0 [72, 8], ...
    const auto values = wave(weight->bytes / sizeof(float), 1.7 + double(i));
    if (auto done = gru->set(weight->name, values.data(), values.size()); !done) return done;
  }
  auto head = fastrnn::Linear<float>::make(kHidden, 1);
  if (!head) return head.error();
  const std::vector<float> weight = wave(kHidden, 2.9), bias = {0.1F};
  if (auto done = head->set(weight.data(), bias.data()); !done) return done;
  return fastrnn::save(path, {{"gru.", *gru}, {"head.", *head}});  // fastrnn.load(path) of Python reads it, too
}

int run(const char* path) {
  const auto file = fastrnn::Weights::open(path);
  if (!file) return failed(file.error());
  const auto gru = fastrnn::Layer<float>::load(*file, "gru.");
  if (!gru) return failed(gru.error());
  const auto head = fastrnn::Linear<float>::load(*file, "head.");
  if (!head) return failed(head.error());

  const std::vector<float> x = wave(kSteps * kInput, 0.37);  // [T, 1, I]
  std::vector<float> y(kSteps * kHidden), whole(kSteps), streamed(kSteps);
  fastrnn::Sequence<float> all;  // of one row
  all.steps = kSteps;
  all.x = x.data(), all.x_step = kInput;
  all.y = y.data(), all.y_step = kHidden;
  if (auto done = gru->run(all); !done) return failed(done.error());
  if (auto done = head->run(y.data(), whole.data(), kSteps); !done) return failed(done.error());

  auto stream = gru->stream();
  if (!stream) return failed(stream.error());
  float h[kHidden];
  fastrnn::Status done = fastrnn::Status::ok;
  for (int t = 0; t < kSteps && done == fastrnn::Status::ok;
       ++t) {  // this loop could be an audio callback: it takes no memory and no lock
    done = stream->step(x.data() + t * kInput, h);
    if (done == fastrnn::Status::ok) done = head->step(h, &streamed[size_t(t)]);
  }
  if (done != fastrnn::Status::ok) return std::fprintf(stderr, "fastrnn: %s\n", fastrnn::name(done)), 1;
  const bool same = std::memcmp(whole.data(), streamed.data(), kSteps * sizeof(float)) == 0;
  std::printf("fastrnn %s (%s): last output %.6f, streamed %s\n", fastrnn::version(), fastrnn::isa(),
              double(whole.back()), same ? "with the same bits" : "DIFFERENTLY");
  return same ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (!fastrnn::abi_matches()) return std::fprintf(stderr, "fastrnn: header and library do not match\n"), 1;
  const std::string path = argc > 1 ? argv[1] : std::string(argv[0]) + ".safetensors";
  if (auto done = save(path.c_str()); !done) return failed(done.error());
  return run(path.c_str());
}
