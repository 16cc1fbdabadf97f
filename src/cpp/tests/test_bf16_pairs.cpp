// Pairs of bfloat16 by themselves: how weights that are such are found and packed, and the product of one row.
#include <algorithm>
#include <cstring>

#include "network/bf16.h"
#include "network/dense.h"
#include "tests/check.h"
#include "tests/interpose.h"
#include "tests/problem.h"

namespace fastrnn::tests {
namespace {

// One row of a product reads the pairs, which are zeros here, and several rows do not.
void one_row_of_a_product_reads_pairs(const Backend& backend) {
  constexpr int kDepth = 9, kOutputs = 37, offset = 0;
  const size_t outputs = whole_vectors(backend.f32, kOutputs);
  const std::vector<float> packed(outputs * kDepth, 1.0f), bias(outputs, 3.0f), x(kDepth, 1.0f);
  const std::vector<uint32_t> zeros(outputs * size_t(pairs_of(kDepth)));
  std::vector<float> y(2 * kOutputs);
  const float* const in[] = {x.data(), x.data()};
  float* const out[] = {y.data(), y.data() + kOutputs};
  const ProductTask<float> task = {in,          out,      1,     kDepth,      &offset, packed.data(),
                                   bias.data(), kOutputs, false, zeros.data()};
  const auto all = [&](int row, float value) {
    return std::all_of(out[row], out[row] + kOutputs, [&](float v) { return v == value; });
  };
  backend.f32.product(task, rows_between(0, 2));
  CHECK(all(0, 3 + kDepth) && all(1, 3 + kDepth), "%s: two rows", backend.name);
  backend.f32.product(task, rows_between(1, 2));
  CHECK(all(0, 3 + kDepth) && all(1, 3), "%s: the second row", backend.name);
}

// One bit of the lower sixteen, in any place, tells.
void every_bit_is_looked_at() {
  std::vector<float> w(2 * 1024 + 3, 1.5f);
  for (const size_t n : {size_t(0), size_t(1), size_t(1023), size_t(1024), w.size()}) {
    CHECK(all_bf16(w.data(), n), "%zu numbers", n);
  }
  int missed = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const uint32_t bits = 0x3fc00000u | 1u << (i % 16);
    std::memcpy(&w[i], &bits, sizeof bits);
    missed += all_bf16(w.data(), w.size());
    w[i] = 1.5f;
  }
  CHECK(missed == 0, "%d places", missed);
}

// Threads that pack a part each write all of the pairs, and nobody those of another.
void parts_are_apart(const Backend& backend) {
  constexpr int kGates = 4, kUnits = 96, kDepth = 7, kParts = 3;
  constexpr uint32_t kUntouched = 1;
  const size_t blocks = whole_vectors(backend.f32, kUnits), words = blocks * size_t(pairs_of(kDepth));
  const std::vector<float> packed(blocks * kGates * kDepth, 1.5f);
  const auto writers = [&](size_t n, auto pack) {
    std::vector<int> count(n);
    for (int part = 0; part < kParts; ++part) {
      std::vector<uint32_t> pairs(n, kUntouched);
      pack(part, pairs.data());
      for (size_t i = 0; i < n; ++i) count[i] += pairs[i] != kUntouched;
    }
    return count;
  };
  const auto gates = writers(words * kGates, [&](int part, uint32_t* to) {
    backend.bf16.pack_gates(packed.data(), kGates, kUnits, kDepth, part, kParts, to);
  });
  const auto rows = writers(
      words, [&](int part, uint32_t* to) { backend.bf16.pack_rows(packed.data(), kUnits, kDepth, part, kParts, to); });
  const auto once = [](int n) { return n == 1; };
  CHECK(std::all_of(gates.begin(), gates.end(), once), "%s: gates", backend.name);
  CHECK(std::all_of(rows.begin(), rows.end(), once), "%s: rows", backend.name);
}

// A dense layer without memory for pairs reads floats. Nothing but the memory it takes shows what it has.
void dense_without_memory(const Backend& backend) {
  if (!interposes()) return;
  constexpr int kInput = 129, kOutput = 100;
  Dense<float> dense(backend, kInput, kOutput);
  std::vector<float> w(kInput * kOutput), x(2 * kInput, 0.75f), y(2 * kOutput), alone(kOutput);
  const auto taken = [&](float first) {
    for (size_t i = 0; i < w.size(); ++i) w[i] = float(int(i % 255) - 127);
    w[0] = first;
    const long before = calls().allocations;
    dense.pack(w.data(), nullptr);
    return calls().allocations - before;
  };
  CHECK(taken(0.1f) == 0, "%s: pairs of floats", backend.name);
  for (const long left : {0, -1}) {
    fail_allocations(left);
    const long wanted = taken(2);
    fail_allocations(-1);
    CHECK(wanted > 0, "%s: no pairs", backend.name);
    dense.run(x.data(), y.data(), 2, 1);
    dense.step(x.data(), alone.data());
    CHECK(std::equal(alone.begin(), alone.end(), y.begin()), "%s: other bits without memory", backend.name);
  }
  CHECK(taken(2) == 0, "%s: a second block of pairs", backend.name);
  Dense<float> small(backend, 8, 8);
  const long before = calls().allocations;
  small.pack(w.data(), nullptr);
  CHECK(calls().allocations == before, "%s: pairs of few weights", backend.name);
}

}  // namespace

void test_bf16_pairs() {
  every_bit_is_looked_at();
  for (const Backend* backend : usable_backends()) {
    one_row_of_a_product_reads_pairs(*backend);
    parts_are_apart(*backend);
    dense_without_memory(*backend);
  }
}

}  // namespace fastrnn::tests
