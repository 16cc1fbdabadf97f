// A figure of the machine that is found at its first use.
#pragma once

#include <atomic>

namespace fastrnn {

// No static local: a child that is forked while another thread finds one would wait for that thread for ever (6 of 60
// children did). Threads that ask at once may each find the figure, and disturb each other; all get that of the first.
template <class T>
class Once {
 public:
  // find() returns the figure, and never T(), which says that it is not known yet.
  template <class Find>
  T get(Find find) {
    T known = value_.load(std::memory_order_relaxed);
    if (known != T()) return known;
    const T found = find();
    return value_.compare_exchange_strong(known, found, std::memory_order_relaxed) ? found : known;
  }

 private:
  std::atomic<T> value_{T()};
};

}  // namespace fastrnn
