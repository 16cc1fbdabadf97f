// For the tests of the public API, which see nothing else of the library. weight() and wave() give the same on every
// machine.
#pragma once

#include <fastrnn/fastrnn.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tests/check.h"

namespace fastrnn::tests {

void test_api();
void test_errors();
void test_more_errors();
void test_real_time();
void test_out_of_memory();
void test_pool_api();
void test_files();
void test_loading();
void test_halves();
void test_saving();
void test_states();
void test_strides();
void test_mutations();

// SplitMix64's finaliser, a hash of its argument.
inline uint64_t mixed(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

template <class T>
std::vector<T> draw(size_t n, uint64_t seed, double scale = 1) {
  std::vector<T> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = T((double(mixed(seed * 1000003 + i) >> 41) * 0x1p-22 - 1) * scale);
  return values;
}

template <class T>
bool equal_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline Config config_of(Cell cell, int input, int hidden, int layers = 1, int proj_size = 0, bool bidirectional = false,
                        bool bias = true) {
  Config c;
  c.cell = cell, c.input_size = input, c.hidden_size = hidden, c.num_layers = layers, c.proj_size = proj_size;
  c.bidirectional = bidirectional, c.bias = bias;
  return c;
}

// abort() drops what printf() holds back for a pipe.
[[noreturn]] inline void give_up(const Error& error) {
  std::printf("%s: %s\n", name(error.status()), error.message());
  std::fflush(stdout);
  std::abort();
}

// Aborts the run on an error: what the tests need to go on.
template <class Value>
Value required(Result<Value> result) {
  if (!result) give_up(result.error());
  return *std::move(result);
}

inline void required(const Result<void>& result) {
  if (!result) give_up(result.error());
}

inline void required(Status status) {
  Error error;
  error.raw()->status = fastrnn_status(status);
  if (status != Status::ok) give_up(error);
}

// With drawn weights, prepared.
template <class T>
Layer<T> ready_layer(const Config& config, uint64_t seed = 1, double scale = 0.5) {
  Layer<T> layer = required(Layer<T>::make(config));
  for (size_t i = 0; i < layer.count(); ++i) {
    const Tensor t = required(layer.at(i));
    const auto values = draw<T>(t.bytes / sizeof(T), seed + i, scale);
    required(layer.set(t.name, values.data(), values.size()));
  }
  required(layer.prepare());
  return layer;
}

// Of few bits, which are bfloat16 too.
template <class T>
std::vector<T> draw_coarse(size_t n, uint64_t seed) {
  std::vector<T> values = draw<T>(n, seed, 32);
  for (T& value : values) value = T(int(value)) / 64;
  return values;
}

// With such weights, which one row reads in half the bytes where the layer is large; not prepared.
template <class T>
void set_coarse(Layer<T>& layer) {
  for (size_t i = 0; i < layer.count(); ++i) {
    const Tensor t = required(layer.at(i));
    const auto values = draw_coarse<T>(t.bytes / sizeof(T), i);
    required(layer.set(t.name, values.data(), values.size()));
  }
}

std::string scratch_file(const char* name);  // in the folder the tests run in

}  // namespace fastrnn::tests
