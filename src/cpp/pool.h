// Many independent streams of one network, any of them advanced together as the rows of one batch.
// Everything is allocated when the pool is made: on one thread what is noexcept here takes no memory
// and no lock and makes no system call; on more, steps may wake or start helpers. The bits of a stream
// do not depend on who shares its steps: rows of a batch never do. A pool belongs to one thread at a
// time.
#pragma once

#include <memory>
#include <vector>

#include "network/network.h"

namespace fastrnn {

template <class T>
class StreamPool {
 public:
  // Shares the packed weights; the network must be unidirectional.
  StreamPool(std::shared_ptr<const Network<T>> network, int capacity, int threads);

  // A stream that starts from zeros: its id, which no other stream ever had or will have; -1 when the pool is full.
  int64_t join() noexcept;
  void leave(int slot) noexcept;
  void reset(int slot) noexcept;
  // Where a stream lives: 0 to capacity - 1, or -1 for an id that nobody has.
  int find(int64_t id) const noexcept;

  enum class Fault { none, unknown, repeated };
  struct Selected {
    Fault fault;
    int64_t at;  // the first of the ids that is wrong
  };
  // Names the streams that step() or process() advances next: n <= capacity ids in any order, each once. A fault
  // selects none.
  Selected select(const int64_t* ids, int64_t n) noexcept;
  void step(const T* x,      // [n, I] in the order of the ids
            T* y) noexcept;  // [n, P]
  // As many steps at once, x and y apart from each other.
  void process(int64_t steps, Rows<const T> x,  // [steps, n, I]
               Rows<T> y) noexcept;             // [steps, n, P]

  void read_state(int slot, T* h,  // [L, P]
                  T* c) const;     // [L, H]; LSTM alone
  void write_state(int slot, const T* h, const T* c);

  // What it takes to make the same pool again, states aside: the id of each slot (-1: free), the id it gets next, and
  // the free slots, the next one last.
  struct Book {
    std::vector<int64_t> ids, next;
    std::vector<int32_t> free;
  };
  const Book& book() const { return book_; }
  bool restore(const Book& book);  // false: it makes no sense, and nothing has changed

  int capacity() const { return capacity_; }
  int threads() const { return threads_; }
  int64_t size() const { return capacity_ - int64_t(book_.free.size()); }
  const Network<T>& network() const { return *network_; }

 private:
  // Rows pass through the layers in chunks that stay in the second-level cache.
  struct Chunk {
    T *h, *cell, *unprojected;  // [kChunk, or the capacity] rows of P, pitch, pitch
    T* y[2];                    // [kKept] rows of P: what a layer hands to the next, of a few steps
  };
  // What passes at once: some steps of some of the streams selected, or all.
  struct Part {
    int64_t begin;  // the first of the streams
    int rows;
    int64_t steps;
    const int64_t* first;  // [steps + 1] for the schedule
    bool odd;              // an odd number of steps came before
    Rows<const T> x;
    Rows<T> y;
  };
  T* hidden(int slot, int layer) const;
  T* cell(int slot, int layer) const;
  void gather(const Chunk& chunk, int layer, int64_t begin, int rows) const noexcept;
  void scatter(const Chunk& chunk, int layer, int64_t begin, int rows, BatchRows<const T> y) noexcept;
  void run(const Chunk& chunk, const Part& part, const Team& team) noexcept;
  void run_all(const Chunk& chunk, const Part& all, const Team& team) noexcept;
  void run_chunks(const Chunk& chunk, int64_t from, int64_t to, const Part& call, const Team& team) noexcept;

  std::shared_ptr<const Network<T>> network_;
  int capacity_, threads_, pitch_, bits_ = 0;
  ptrdiff_t layer_size_;  // of one stream's h and c in one layer
  Book book_;
  int64_t selected_ = 0, round_ = 0;
  std::vector<int64_t> seen_;   // [capacity] the round of select() that last named the slot
  std::vector<int32_t> slots_;  // [capacity] of the streams selected
  std::vector<int32_t> order_, length_;
  Block memory_, work_;
  T* state_ = nullptr;         // [capacity][L] of h [padded P] and, for LSTM, c [pitch]
  std::vector<Chunk> chunks_;  // one a thread
};

}  // namespace fastrnn
