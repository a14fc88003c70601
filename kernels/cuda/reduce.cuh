// Sums and maxima over the lanes of a warp and the warps of a block, in an order that depends on nothing but the sizes.
#pragma once
#include <ptx.cuh>

namespace lc::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

__device__ __forceinline__ int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarpSize; }
__device__ __forceinline__ int warp_of_block() { return static_cast<int>(threadIdx.x) / kWarpSize; }

__device__ __forceinline__ float fast_exp(float x) { return ptx::exp2(x * kLog2e); }

// Over groups of kLanes neighbouring lanes (a power of two); every lane gets the result. All 32 lanes must take part.
template <int kLanes = kWarpSize, class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kWholeWarp, x, step);
  return x;
}
template <int kLanes = kWarpSize>
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, step));
  return x;
}

// Over a one-dimensional block of whole warps, warps in order; every thread gets the result. shared: one T per warp, free again on return.
template <class T>
__device__ __forceinline__ T block_sum(T x, T* shared) {
  x = warp_sum(x);
  if (lane_of_warp() == 0) shared[warp_of_block()] = x;
  __syncthreads();
  T total = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / kWarpSize; ++w) total += shared[w];
  __syncthreads();
  return total;
}
__device__ __forceinline__ float block_max(float x, float* shared) {
  x = warp_max(x);
  if (lane_of_warp() == 0) shared[warp_of_block()] = x;
  __syncthreads();
  float most = shared[0];
  for (int w = 1; w < static_cast<int>(blockDim.x) / kWarpSize; ++w) most = fmaxf(most, shared[w]);
  __syncthreads();
  return most;
}

}  // namespace lc::cuda
