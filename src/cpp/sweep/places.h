// Which rows of a thread are alive at a step.
#pragma once

#include "gemm/blocks.h"
#include "gemm/cover.h"

namespace fastrnn {
namespace {

FASTRNN_INLINE int64_t live_rows(const Schedule& s, int64_t step) { return s.first[step + 1] - s.first[step]; }

// The places of a share among the first n: begin, begin + stride, ...
FASTRNN_INLINE int places(const Share& share, int64_t n) {
  const int64_t end = n < share.row_end ? n : share.row_end;
  const int64_t span = end - share.row_begin;
  if (span <= 0) return 0;
  return int(share.row_stride == 1 ? span : (span + share.row_stride - 1) / share.row_stride);
}

}  // namespace
}  // namespace fastrnn
