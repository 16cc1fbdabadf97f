#include "system/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastrnn {
namespace {

// So much of a block lies on huge pages: on a last one that is not filled, too, if three quarters of it are used.
size_t huge_bytes(size_t bytes) { return (bytes + kHugePage - kHugeBlock) / kHugePage * kHugePage; }

std::align_val_t alignment(size_t bytes) { return std::align_val_t(huge_bytes(bytes) ? kHugePage : kAlign); }

}  // namespace

OutOfMemory::OutOfMemory(size_t bytes) noexcept {
  std::snprintf(text_, sizeof text_, "out of memory: expected %zu bytes at once", bytes);
}

Block::Block(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes > PTRDIFF_MAX) throw OutOfMemory(bytes);  // rounded up it might be few
  const size_t huge = huge_bytes(bytes);
  try {
    data_ = static_cast<char*>(::operator new(std::max(bytes, huge), alignment(bytes)));
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(bytes);
  }
#if defined(__linux__)
  if (huge) madvise(data_, huge, MADV_HUGEPAGE);  // no loss where that is refused
#endif
}

Block::~Block() {
  if (data_) ::operator delete(data_, alignment(bytes_));
}

}  // namespace fastrnn
