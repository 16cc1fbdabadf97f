// The floating-point mode that the kernels run in.
#pragma once

#include <cstdint>

namespace fastrnn {

// A floating-point mode, whatever the caller's, which it restores: round to nearest, or threads that started with
// another mode would compute other bits; nothing traps.
template <bool KeepsDenormals>
class FloatingMode {
 public:
#if defined(__x86_64__)
  FloatingMode() : saved_(__builtin_ia32_stmxcsr()) { impose(); }
  void impose() const {
    __builtin_ia32_ldmxcsr(KeepsDenormals ? 0x1f80u : 0x9fc0u);
  }  // all exceptions masked; FTZ, DAZ
  void lift() const { __builtin_ia32_ldmxcsr(unsigned(saved_)); }
#elif defined(__aarch64__)
  // The flags are a register of their own here. "memory": no arithmetic moves from one side of these to the other
  // together with its loads and stores.
  FloatingMode() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_) : : "memory");
    asm volatile("mrs %0, fpsr" : "=r"(flags_) : : "memory");
    impose();
  }
  // FZ: of results and inputs
  void impose() const { asm volatile("msr fpcr, %0" : : "r"(uint64_t(!KeepsDenormals) << 24) : "memory"); }
  void lift() const {
    asm volatile("msr fpcr, %0" : : "r"(saved_) : "memory");
    asm volatile("msr fpsr, %0" : : "r"(flags_) : "memory");
  }
#else
  FloatingMode() : saved_(0) {}
  void impose() const {}
  void lift() const {}
#endif
  ~FloatingMode() { lift(); }
  FloatingMode(const FloatingMode&) = delete;

 private:
  uint64_t saved_;
#if defined(__aarch64__)
  uint64_t flags_;
#endif
};

// Of the kernels: denormals are zero (FTZ and DAZ), or a decaying state would cost a hundred cycles an operation. (Of a
// result that rounding lifts to the smallest normal number x86 keeps that number and ARM makes zero.)
using KernelMode = FloatingMode<false>;
// Of optimizers: the root of a tiny mean square divides.
using OptimizerMode = FloatingMode<true>;

}  // namespace fastrnn
