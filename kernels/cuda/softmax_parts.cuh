// Soft-max cross-entropy of rows whose scores exist only in strips of 64 columns (product.cuh): a part per row and strip, merged in order.
#pragma once
#include "kernels/cuda/product.cuh"

namespace lc::cuda {

struct SoftmaxPart {  // Σ exp(score − highest), and Σ target · score
  float highest, sum, wanted;
};
__device__ __forceinline__ void merge(SoftmaxPart& to, const SoftmaxPart& other) {
  const float highest = fmaxf(to.highest, other.highest);
  if (highest != -INFINITY) to.sum = to.sum * expf(to.highest - highest) + other.sum * expf(other.highest - highest);
  to.highest = highest, to.wanted += other.wanted;
}

// score(m, n, s, wanted): the score of row m and column n from the product s, −∞ when it does not count; adds to what is wanted of the row.
template <class F>
__device__ __forceinline__ void put_softmax_parts(const Fragment<8>& s, std::int64_t row, std::int64_t column, const Extent& extent,
                                                  SoftmaxPart* parts, F&& score) {
  const int lane = lane_of_warp(), g = lane / 4, t = lane % 4;
  const std::int64_t strips = (extent.n + kStripColumns - 1) / kStripColumns;
  const int columns = extent.n - column < kStripColumns ? static_cast<int>(extent.n - column) : kStripColumns;  // from `column` on
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t m = row + g + 8 * half;
    float x[16], wanted = 0, highest = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int c = 8 * (i / 2) + 2 * t + i % 2;
      x[i] = m < extent.m && c < columns ? score(m, column + c, s[i / 2][2 * half + i % 2], wanted) : -INFINITY;
      highest = fmaxf(highest, x[i]);
    }
    highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, 2));
    const float base = highest == -INFINITY ? 0.0f : highest;  // all −∞: the sum is 0
#pragma unroll
    for (int i = 0; i < 16; ++i) sum += fast_exp(x[i] - base);
    sum = warp_sum<4>(sum), wanted = warp_sum<4>(wanted);
    if (t == 0 && m < extent.m && column < extent.n) parts[m * strips + column / kStripColumns] = {highest, sum, wanted};
  }
}
inline std::int64_t softmax_parts(const Extent& e) { return e.m * ceil_div(e.n, kStripColumns); }

// lse[m] and losses[m] = lse − what is wanted, for every row of the parts.
void merge_softmax_parts(const Queue& queue, const SoftmaxPart* parts, const Extent& extent, float* lse, double* losses);
// to[0] = or += factor · Σ values, in order.
void sum_in_order(const Queue& queue, const double* values, std::int64_t count, double factor, float* to, kernels::Into into);

}  // namespace lc::cuda
