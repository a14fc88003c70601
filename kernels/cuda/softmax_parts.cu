#include "kernels/cuda/softmax_parts.cuh"

namespace lc::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize, kSumThreads = 256;

// merge_softmax_parts_kernel: one warp a row.
// in   parts (rows, strips)      out  lse (rows), losses (rows) double
// grid (rows / 4)   block 128   shared none
__global__ void __launch_bounds__(kThreads)
    merge_softmax_parts_kernel(const SoftmaxPart* parts, std::int64_t rows, std::int64_t strips, float* lse, double* losses) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block();
  if (row >= rows) return;
  SoftmaxPart all{-INFINITY, 0, 0};
  for (std::int64_t i = lane_of_warp(); i < strips; i += kWarpSize) merge(all, parts[row * strips + i]);
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    merge(all, {__shfl_xor_sync(kWholeWarp, all.highest, step), __shfl_xor_sync(kWholeWarp, all.sum, step),
                __shfl_xor_sync(kWholeWarp, all.wanted, step)});
  }
  if (lane_of_warp() != 0) return;
  const double value = static_cast<double>(all.highest) + log(static_cast<double>(all.sum));
  lse[row] = static_cast<float>(value);
  losses[row] = value - static_cast<double>(all.wanted);
}

// sum_in_order_kernel: to[0] = or += factor · Σ values.      grid (1)   block 256   shared 8 doubles
__global__ void __launch_bounds__(kSumThreads)
    sum_in_order_kernel(const double* values, std::int64_t count, double factor, float* to, kernels::Into into) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kSumThreads) sum += values[i];
  sum = factor * block_sum(sum, ptx::dynamic_shared<double>());
  if (threadIdx.x == 0) to[0] = static_cast<float>(sum) + (into == kernels::Into::add ? to[0] : 0.0f);
}

}  // namespace

void merge_softmax_parts(const Queue& queue, const SoftmaxPart* parts, const Extent& extent, float* lse, double* losses) {
  launch("merge_softmax_parts_kernel", merge_softmax_parts_kernel,
         {dim3(static_cast<unsigned>(ceil_div(extent.m, kWarps))), dim3(kThreads)}, queue, parts, extent.m,
         ceil_div(extent.n, kStripColumns), lse, losses);
}

void sum_in_order(const Queue& queue, const double* values, std::int64_t count, double factor, float* to, kernels::Into into) {
  launch("sum_in_order_kernel", sum_in_order_kernel, {dim3(1), dim3(kSumThreads), kSumThreads / kWarpSize * sizeof(double)}, queue, values,
         count, factor, to, into);
}

}  // namespace lc::cuda
