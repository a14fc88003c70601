// What every way of multiplying hands to an epilogue: strips of 16 × 64 results in a warp's registers.
#pragma once
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tile.cuh"

namespace lc::cuda {

enum class Stored : std::uint8_t { rows, columns };  // operand (m, k): row m holds its k, or row k holds its m

struct Extent {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t k_part = 0;  // of a block: parts of the depth are blockIdx.z; a multiple of kDepth
};

constexpr int kStripRows = 16, kStripColumns = 64;  // what the epilogue sees at a time

// f(m, n, v): the lane's pairs of neighbouring columns n, n + 1 of the strip at (row, column).
template <class F>
__device__ __forceinline__ void for_pairs(const Fragment<8>& s, std::int64_t row, std::int64_t column, F&& f) {
  const int lane = lane_of_warp(), g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float pair[2] = {s[j][2 * half], s[j][2 * half + 1]};
      f(row + g + 8 * half, column + 8 * j + 2 * t, pair);
    }
  }
}

}  // namespace lc::cuda
