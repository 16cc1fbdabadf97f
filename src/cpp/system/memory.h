// Memory for tapes, workspaces and results: one aligned block each, cut up by an
// Arena, kept in a BlockPool between calls. Fresh pages cost a fault per 4 KiB (a training
// step of LSTM T100 B64 H256 touches 40 MB); a block that comes back costs nothing.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace fastrnn {

constexpr size_t kAlign = 64;
constexpr size_t kHugePage = size_t(1) << 21;
constexpr size_t kHugeBlock = kHugePage / 4 * 3;  // bytes from which a Block asks for huge pages

// What a Block throws: how much was wanted tells a batch that is too large from a machine that is too small.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes) noexcept;
  const char* what() const noexcept override { return text_; }

 private:
  char text_[80];
};

// A block of 1.5 MB or more asks for pages of 2 MB (Linux). Those of 4 KB are looked up in memory again and again when
// weights do not fit what a core remembers of them (LSTM T100 B1 H1024 17.1 ms, 14.2 with huge pages; T20 on one thread
// 8.4, 6.4), or have left the caches in a pause (H256, every 30 ms: a step 300 us, 214; T10 437, 366).
class Block {
 public:
  Block() = default;
  explicit Block(size_t bytes);
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Block();

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Block& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

// Hands out aligned pieces of a block, or, with no base, learns how large it has to be (`carved`). Of more bytes than
// can be counted it has used SIZE_MAX from then on, which no Block has.
class Arena {
 public:
  explicit Arena(char* base = nullptr) : base_(base) {}

  // n times `each` elements; `each` is small enough to be counted in bytes.
  template <class T>
  T* take(size_t n, size_t each = 1) {
    T* const p = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    size_t bytes;
    if (__builtin_mul_overflow(n, each * sizeof(T), &bytes) || __builtin_add_overflow(bytes, kAlign - 1, &bytes) ||
        __builtin_add_overflow(used_, bytes / kAlign * kAlign, &used_)) {
      used_ = SIZE_MAX;
    }
    return p;
  }
  template <class T>
  T* take_if(bool wanted, size_t n, size_t each = 1) {
    return wanted ? take<T>(n, each) : nullptr;
  }
  size_t used() const { return used_; }
  // As far as a copy of it, which has taken more.
  void reach(const Arena& other) { used_ = std::max(used_, other.used_); }

 private:
  char* base_;
  size_t used_ = 0;
};

// A few blocks of past calls, for calls to come: at most `most`, of `bytes` together. The last one given is taken
// first, as it is in the caches (GRUCell 512, training through torch on Zen 4, 21 ms; the oldest first 26). The oldest
// go first, and what nobody has taken for a while, so that one large call does not bind its memory for as long as there
// are small ones.
// Threads may share it; who would have to wait for another goes without. (Nobody waits for long, but in a child forked
// meanwhile for ever: the tape it drops hung it there.)
class BlockPool {
 public:
  explicit BlockPool(size_t most = 4, size_t bytes = SIZE_MAX) : most_(most), bytes_(bytes) {
    kept_.reserve(most + 1);  // give() runs in destructors and must not allocate
  }

  Block take(size_t bytes) {
    if (bytes == 0) return {};
    if (const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock); lock) {
      ++takes_;
      for (auto kept = kept_.rbegin(); kept != kept_.rend(); ++kept) {
        if (kept->block.bytes() < bytes || kept->block.bytes() > 2 * bytes + kSmall) continue;
        Block found = std::move(kept->block);
        kept_.erase(std::next(kept).base());
        kept_bytes_ -= found.bytes();
        return found;
      }
    }
    return Block(bytes);
  }

  void give(Block block) noexcept {
    if (block.bytes() == 0 || block.bytes() > bytes_) return;  // for the sake of a large one all others would go
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock) return;
    kept_bytes_ += block.bytes();
    kept_.push_back({std::move(block), takes_});
    forget();
  }

  // For who needs nothing from here: like a take that finds nothing.
  void pass_by() noexcept {
    if (kept_bytes_.load(std::memory_order_relaxed) == 0) return;
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock) return;
    ++takes_;
    forget();
  }

  size_t kept_bytes() const { return kept_bytes_; }  // for tests alone

 private:
  struct Kept {
    Block block;
    uint64_t since;  // takes_ when it was given
  };
  void forget() noexcept {
    while (kept_.size() > most_ || kept_bytes_ > bytes_ ||
           (!kept_.empty() && takes_ - kept_.front().since > kForgotten)) {
      kept_bytes_ -= kept_.front().block.bytes();
      kept_.erase(kept_.begin());
    }
  }

  static constexpr size_t kSmall = size_t(1) << 16;
  static constexpr uint64_t kForgotten = 64;  // takes, a dozen steps of training
  const size_t most_, bytes_;
  std::mutex mutex_;
  std::atomic<size_t> kept_bytes_{0};
  uint64_t takes_ = 0;
  std::vector<Kept> kept_;  // in the order they were given
};

// A block on loan from a pool.
class Loan {
 public:
  Loan() = default;
  Loan(BlockPool& pool, size_t bytes) : pool_(&pool), block_(pool.take(bytes)) {}
  Loan(Loan&& other) noexcept { *this = std::move(other); }
  Loan& operator=(Loan&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(block_, other.block_);
    return *this;
  }
  ~Loan() {
    if (pool_) pool_->give(std::move(block_));
  }
  char* data() const { return block_.data(); }
  size_t bytes() const { return block_.bytes(); }

 private:
  BlockPool* pool_ = nullptr;
  Block block_;
};

// A block, or one on loan, with the pieces in it that `lay_out(arena)` takes and keeps.
template <class LayOut>
Block carved(LayOut lay_out) {
  Arena sizes;
  lay_out(sizes);
  Block block(sizes.used());
  Arena pieces(block.data());
  lay_out(pieces);
  return block;
}
template <class LayOut>
Loan carved(BlockPool& pool, LayOut lay_out) {
  Arena sizes;
  lay_out(sizes);
  Loan loan(pool, sizes.used());
  Arena pieces(loan.data());
  lay_out(pieces);
  return loan;
}

}  // namespace fastrnn
