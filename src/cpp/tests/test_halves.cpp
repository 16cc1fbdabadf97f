// Weights at half the size: every value of F16 and BF16 becomes the float that it is.
#include <cmath>
#include <cstring>

#include "tests/api_check.h"

namespace fastrnn::tests {
namespace {

constexpr int kSide = 256, kValues = kSide * kSide;  // every half once

double value_of(int bits, int fraction_bits) {
  const int exponent_bits = 15 - fraction_bits, most = (1 << exponent_bits) - 1;
  const int exponent = bits >> fraction_bits & most, fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == most) return fraction ? std::nan("") : sign * HUGE_VAL;
  const int whole = fraction + (exponent ? 1 << fraction_bits : 0);
  return sign * std::ldexp(whole, (exponent ? exponent : 1) - most / 2 - fraction_bits);
}

// A file of which every tensor is a square of all halves.
Weights half_file(const char* dtype, std::initializer_list<const char*> names) {
  std::string header = "{";
  size_t at = 0;
  for (const char* name : names) {
    header += std::string(at ? "," : "") + "\"" + name + "\":{\"dtype\":\"" + dtype +
              "\",\"shape\":[256,256],\"data_offsets\":[" + std::to_string(at) + "," +
              std::to_string(at + 2 * kValues) + "]}";
    at += 2 * kValues;
  }
  header += "}";
  std::vector<unsigned char> file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<unsigned char>(header.size() >> (8 * i)));
  file.insert(file.end(), header.begin(), header.end());
  for (size_t i = 0; i < at / 2; ++i) {
    file.push_back(static_cast<unsigned char>(i)), file.push_back(static_cast<unsigned char>(i >> 8));
  }
  return required(Weights::parse(file.data(), file.size()));
}

bool same(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b); }

void every_value(const char* dtype, int fraction_bits) {
  const Weights weights = half_file(dtype, {"rnn.weight_ih_l0", "rnn.weight_hh_l0"});
  Layer<float> layer = required(Layer<float>::make(config_of(Cell::rnn_tanh, kSide, kSide, 1, 0, false, false)));
  required(layer.assign(weights, "rnn."));
  for (size_t tensor = 0; tensor < layer.count(); ++tensor) {
    const Tensor t = required(layer.at(tensor));
    for (int bits = 0; bits < kValues; ++bits) {
      float got;
      std::memcpy(&got, static_cast<const char*>(t.data) + sizeof got * size_t(bits), sizeof got);
      if (!same(double(got), value_of(bits, fraction_bits))) {
        CHECK(false, "%s: %s of %04x is %g", t.name, dtype, unsigned(bits), double(got));
        break;
      }
    }
  }
}

void as_a_head() {
  const auto head = required(Linear<float>::load(half_file("BF16", {"weight"})));
  std::vector<float> x(kSide), y(kSide);
  x[0x80] = 1;
  required(head.step(x.data(), y.data()));
  CHECK(y[0x3f] == 1 && y[0x40] == 4 && y[0xbf] == -1, "%g %g %g", double(y[0x3f]), double(y[0x40]), double(y[0xbf]));
}

void never_as_double() {
  const Weights weights = half_file("F16", {"weight_ih_l0", "weight_hh_l0"});
  Layer<double> layer = required(Layer<double>::make(config_of(Cell::rnn_tanh, kSide, kSide, 1, 0, false, false)));
  const auto refused = layer.assign(weights);
  CHECK(!refused && std::strstr(refused.error().message(), "weight_ih_l0: expected dtype F64, got F16"), "accepted");
  Layer<float> other = required(Layer<float>::make(config_of(Cell::rnn_tanh, kSide, kSide, 1, 0, false, false)));
  const auto integers = other.assign(half_file("I16", {"weight_ih_l0", "weight_hh_l0"}));
  CHECK(!integers && std::strstr(integers.error().message(), "expected dtype F32, F64, F16 or BF16, got I16"),
        "accepted");
}

}  // namespace

void test_halves() {
  every_value("F16", 10);
  every_value("BF16", 7);
  as_a_head();
  never_as_double();
}

}  // namespace fastrnn::tests
