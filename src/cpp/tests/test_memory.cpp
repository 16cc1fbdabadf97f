// Blocks of every size are aligned and whole, with huge pages and without; a pool gives back what was given to it.
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <utility>

#include "network/tape.h"
#include "registry.h"
#include "system/few.h"
#include "system/memory.h"
#include "tests/check.h"

namespace fastrnn::tests {
namespace {

constexpr size_t kMiB = size_t(1) << 20;

void check_block(size_t bytes) {
  Block first(bytes);
  Block block = std::move(first);
  CHECK(block.bytes() == bytes && first.bytes() == 0 && !first.data(), "%zu bytes moved", bytes);
  CHECK(uintptr_t(block.data()) % kAlign == 0, "%zu bytes at %p", bytes, static_cast<void*>(block.data()));
  CHECK((block.data() != nullptr) == (bytes > 0), "%zu bytes", bytes);
  if (bytes == 0) return;
  std::memset(block.data(), 7, bytes);
  CHECK(block.data()[0] == 7 && block.data()[bytes - 1] == 7, "%zu bytes written", bytes);
}

// As many values as were asked for, zero at first, in the object itself where they are few.
void check_few(size_t size) {
  Few<int64_t, 3> few(size);
  const auto *begin = reinterpret_cast<const char*>(&few), *data = reinterpret_cast<const char*>(few.data());
  const bool own = begin <= data && data < begin + sizeof(few);
  CHECK(own == (size <= 3) && few.size() == size && few.end() - few.begin() == ptrdiff_t(size), "%zu values", size);
  int64_t sum = 0;
  for (size_t i = 0; i < size; ++i) sum += few[i], few[i] = int64_t(i) + 1;
  CHECK(sum == 0 && (size == 0 || (few.front() == 1 && few.back() == int64_t(size))), "%zu values", size);
}

// A later block is of the same memory where that is large enough, and not twice as large.
void check_pool(size_t given, size_t taken, bool again) {
  BlockPool pool;
  const void* data = nullptr;
  {
    const Loan loan(pool, given);
    data = loan.data();
  }
  const Loan loan(pool, taken);
  CHECK((loan.data() == data) == again, "%zu bytes after %zu", taken, given);
  CHECK(loan.bytes() >= taken, "%zu bytes of %zu", loan.bytes(), taken);
}

// A block that is larger than all a pool may keep goes itself, not the others. The last one given, which is in the
// caches, is the first taken.
void check_limits() {
  BlockPool pool(2, 3 * kMiB);
  Block first(kMiB), second(kMiB);
  const void* const kept[] = {first.data(), second.data()};
  pool.give(std::move(first));
  pool.give(std::move(second));
  pool.give(Block(4 * kMiB));
  const Block again = pool.take(kMiB), last = pool.take(kMiB);
  CHECK(again.data() == kept[1] && last.data() == kept[0], "%p %p", static_cast<void*>(again.data()),
        static_cast<void*>(last.data()));
}

// Of one large call nothing is left after many small ones.
void check_forgotten() {
  BlockPool pool;
  const void* large = nullptr;
  {
    const Loan loan(pool, 9 * kMiB);
    large = loan.data();
  }
  for (int i = 0; i < 10; ++i) const Loan small(pool, kMiB);
  {
    const Loan loan(pool, 9 * kMiB);
    CHECK(loan.data() == large, "forgotten after ten");
  }
  for (int i = 0; i < 100; ++i) const Loan small(pool, kMiB);
  CHECK(pool.kept_bytes() < 2 * kMiB, "%zu bytes are kept", pool.kept_bytes());
}

// Who needs no memory takes and gives none.
void check_nothing() {
  BlockPool pool(1);
  pool.give(Block(kMiB));
  {
    const Loan none(pool, 0);
  }
  CHECK(pool.kept_bytes() == kMiB, "%zu bytes are kept", pool.kept_bytes());
}

// More than can be counted, in one piece, by a product, or with a piece before: there is no block of it, and none of
// less because of what comes behind.
void check_uncounted() {
  const size_t pieces[][3] = {{0, SIZE_MAX / 8 + 1, 1},
                              {0, SIZE_MAX / 8, 1},
                              {0, size_t(1) << 59, 32},
                              {kMiB, SIZE_MAX / 8 - 8, 1},
                              {SIZE_MAX / 8 - 16, kMiB, 1}};
  for (const auto& [before, n, each] : pieces) {
    bool refused = false;
    try {
      carved([before = before, n = n, each = each](Arena& arena) {
        arena.take<double>(before);
        arena.take<double>(n, each);
        arena.take_if<char>(true, 100);
      });
    } catch (const OutOfMemory&) {
      refused = true;
    }
    CHECK(refused, "%zu, %zu times %zu elements", before, n, each);
  }
}

// A tape of more than can be counted, by sizes each of which is taken.
void check_uncounted_tape() {
  constexpr int kSize = 1 << 21;
  const Config config = {Cell::lstm, 1, 1 << 20, 2, true, false, 0};
  Sequence<float> call = {};
  call.steps = kSize, call.batch = kSize;
  Tape<float> tape(config, call, true);
  Arena sizes;
  tape.lay_out(sizes, config, current_backend().f32.cells[int(Cell::lstm)]);
  CHECK(sizes.used() == SIZE_MAX, "%zu bytes", sizes.used());
}

}  // namespace

void test_memory() {
  for (const size_t bytes : {size_t(0), size_t(1), size_t(63), size_t(64), size_t(4097), kMiB, 3 * kMiB / 2 - 1,
                             3 * kMiB / 2, 2 * kMiB, 2 * kMiB + 1, 7 * kMiB / 2 - 1, 7 * kMiB / 2, 9 * kMiB + 5}) {
    check_block(bytes);
  }
  for (const size_t size : {0, 1, 3, 4, 100}) check_few(size);
  check_pool(3 * kMiB, 3 * kMiB, true);
  check_pool(3 * kMiB, 2 * kMiB, true);
  check_pool(3 * kMiB, 4 * kMiB, false);
  check_pool(9 * kMiB, kMiB, false);
  check_limits();
  check_forgotten();
  check_nothing();
  check_uncounted();
  check_uncounted_tape();
}

}  // namespace fastrnn::tests
