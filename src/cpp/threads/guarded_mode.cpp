#include "threads/guarded_mode.h"

namespace fastrnn {
namespace {

thread_local const KernelMode* outermost = nullptr;

}  // namespace

GuardedMode::GuardedMode() {
  if (!outermost) outermost = &mode_;
}

GuardedMode::~GuardedMode() {
  if (outermost == &mode_) outermost = nullptr;
}

GuardedMode::Lifted::Lifted() : lifted_(outermost) {
  outermost = nullptr;
  if (lifted_) lifted_->lift();
}

GuardedMode::Lifted::~Lifted() {
  outermost = lifted_;
  if (lifted_) lifted_->impose();
}

}  // namespace fastrnn
