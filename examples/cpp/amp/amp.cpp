// A guitar amplifier for WAV files: y[t] = W h[t] + b + x[t], h being a recurrent layer that is fed single samples, as
// an audio callback would feed it. examples/train_amp.py makes the weights.
//
//   amp amp/amp.safetensors amp/dry.wav loud.wav
//
// It writes 32 bit floats, bit for bit what the stream of the
// Python package computes, and prints how long a sample took.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fastrnn/fastrnn.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "wav.h"

namespace {

// The value of a result, or its error as an exception: fine here, where everything is made.
template <class Value>
Value made(fastrnn::Result<Value> result, const std::string& what) {
  if (!result) throw std::runtime_error(what + ": " + result.error().message());
  return *std::move(result);
}

class Amp {
 public:
  // Each channel has a memory of its own: it is a row of the stream's batch, whose bits no other row changes.
  Amp(const std::string& path, int channels)
      : file_(made(fastrnn::Weights::open(path.c_str()), path)),
        layer_(made(fastrnn::Layer<float>::load(file_, "lstm."), path)),
        head_(made(fastrnn::Linear<float>::load(file_, "head."), path)),
        stream_(made(layer_.stream(channels), path)),
        channels_(channels),
        units_(layer_.config().output_size()),
        hidden_(size_t(channels) * size_t(units_)) {
    if (layer_.config().input_size != 1 || head_.in_features() != units_ || head_.out_features() != 1)
      throw std::runtime_error(path + ": expected a layer of 1 input and a head of 1 output on all its units");
  }

  // One frame, x [C] to y [C]. Takes no memory, no lock and no
  // system call: call it where the sound is. What could fail
  // are null and misaligned pointers, and these are neither.
  void step(const float* x, float* y) noexcept {
    (void)stream_.step(x, hidden_.data());
    for (int c = 0; c < channels_; c++) {
      (void)head_.step(&hidden_[size_t(c) * size_t(units_)], &y[c]);
      y[c] += x[c];
    }
  }

 private:
  fastrnn::Weights file_;
  fastrnn::Layer<float> layer_;
  fastrnn::Linear<float> head_;
  fastrnn::Stream<float> stream_;
  int channels_, units_;
  std::vector<float> hidden_;  // [C, H]
};

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::vector<int64_t>;

int64_t between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
}

int64_t percentile(Nanoseconds& times, double share) {
  auto place = times.begin() + ptrdiff_t(share * double(times.size() - 1));
  std::nth_element(times.begin(), place, times.end());
  return *place;
}

// What the reading of the clock itself adds to each of `times`.
int64_t clock_cost() {
  Nanoseconds times(1001);
  Clock::time_point last = Clock::now();
  for (int64_t& time : times) {
    Clock::time_point now = Clock::now();
    time = between(last, now);
    last = now;
  }
  return percentile(times, 0.5);
}

// Returns the time of each frame.
Nanoseconds play(Amp& amp, const Wav& in, Wav& out) {
  Nanoseconds times(in.frames());
  Clock::time_point last = Clock::now();
  for (size_t n = 0; n < times.size(); n++) {
    amp.step(&in.samples[n * in.channels], &out.samples[n * in.channels]);
    Clock::time_point now = Clock::now();
    times[n] = between(last, now);
    last = now;
  }
  return times;
}

void report(const Wav& wav, Nanoseconds& times) {
  double sound = double(times.size()) / wav.rate, spent = 0;
  for (int64_t time : times) spent += double(time) * 1e-9;
  std::printf("%.2f s of sound, %d channel(s) at %u Hz, in %.4f s: real-time factor %.5f (%.0f times real time)\n",
              sound, wav.channels, wav.rate, spent, spent / sound, sound / spent);
  std::printf(
      "a sample takes p50 %lld ns, p99 %lld ns, p99.9 %lld ns of the %.0f ns there are; %lld ns of it are the "
      "clock's\n",
      (long long)percentile(times, 0.5), (long long)percentile(times, 0.99), (long long)percentile(times, 0.999),
      1e9 / wav.rate, (long long)clock_cost());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: amp WEIGHTS.safetensors IN.wav OUT.wav\n");
    return 2;
  }
  try {
    Wav in = read_wav(argv[2]), out = in;
    Amp amp(argv[1], in.channels);
    Nanoseconds times = play(amp, in, out);
    write_wav(argv[3], out);
    if (!times.empty()) report(in, times);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "amp: %s\n", error.what());
    return 1;
  }
}
