// The registers of one warp around ldmatrix and mma, as device memory.
#pragma once
#include "kernels/numeric.h"

namespace lc::test {

struct LaneMaps {
  const std::uint32_t *a, *b;         // (32, 4), (32, 2) operands of mma.m16n8k16
  std::uint32_t *plain, *transposed;  // (32, 4) what ldmatrix.x4 gave for rows 0 … 31 of 8 elements numbered 0 … 255
  float* c;                           // (32, 4)
};
void run_lane_maps(const Queue& queue, const LaneMaps& maps);

}  // namespace lc::test
