// Objects that belong to one thread at a time.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>
#include <variant>

#include "python/bind.h"

namespace fastrnn {

// Whoever uses an object that belongs to one thread at a time, for as long as it does. With the GIL only calls that
// release it can meet, and a plain store is enough: an exchange costs 20 cycles of a step.
class Claim {
 public:
  Claim(std::atomic<bool>& busy, const char* what) : busy_(busy) {
#if defined(Py_GIL_DISABLED)
    const bool taken = busy.exchange(true, std::memory_order_acquire);
#else
    const bool taken = busy.load(std::memory_order_relaxed);
    if (!taken) busy.store(true, std::memory_order_relaxed);
#endif
    if (taken) {
      throw std::runtime_error(std::string(what) + ": in use by another thread; it belongs to one thread at a time");
    }
  }
  ~Claim() { busy_.store(false, std::memory_order_release); }
  Claim(const Claim&) = delete;

 private:
  std::atomic<bool>& busy_;
};

// visit(what an object holds) by the one thread that uses it. `Any` has a variant `held`, a flag `busy`, and says in
// `kWhat` what it is.
template <class Any, class Visit>
auto claimed(Any& any, Visit visit) {
  const Claim claim(check_made(any).busy, Any::kWhat);
  return std::visit([&](auto& held) { return visit(*held); }, any.held);
}

// The same by any thread, of what never changes.
template <class Any, class Visit>
auto looked_at(const Any& any, Visit visit) {
  return std::visit([&](const auto& held) { return visit(*held); }, check_made(any).held);
}

}  // namespace fastrnn
