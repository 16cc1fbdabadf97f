// The floating-point mode that the kernels run in.
#pragma once

#include <cstdint>

namespace fastrnn {

// The floating-point mode of all arithmetic here, whatever the caller's, which it restores: round to nearest, or
// threads that started with another mode would compute other bits; nothing traps; denormals are zero (FTZ and DAZ), or
// a decaying state would cost a hundred cycles an operation. (Of a result that rounding lifts to the smallest normal
// number x86 keeps that number and ARM makes zero.)
class KernelMode {
 public:
#if defined(__x86_64__)
  KernelMode() : saved_(__builtin_ia32_stmxcsr()) { impose(); }
  void impose() const { __builtin_ia32_ldmxcsr(0x9fc0u); }  // FTZ, all exceptions masked, DAZ
  void lift() const { __builtin_ia32_ldmxcsr(unsigned(saved_)); }
#elif defined(__aarch64__)
  // The flags are a register of their own here. "memory": no arithmetic moves from one side of these to the other
  // together with its loads and stores.
  KernelMode() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_) : : "memory");
    asm volatile("mrs %0, fpsr" : "=r"(flags_) : : "memory");
    impose();
  }
  void impose() const { asm volatile("msr fpcr, %0" : : "r"(uint64_t(1) << 24) : "memory"); }  // FZ: results and inputs
  void lift() const {
    asm volatile("msr fpcr, %0" : : "r"(saved_) : "memory");
    asm volatile("msr fpsr, %0" : : "r"(flags_) : "memory");
  }
#else
  KernelMode() : saved_(0) {}
  void impose() const {}
  void lift() const {}
#endif
  ~KernelMode() { lift(); }
  KernelMode(const KernelMode&) = delete;

 private:
  uint64_t saved_;
#if defined(__aarch64__)
  uint64_t flags_;
#endif
};

}  // namespace fastrnn
