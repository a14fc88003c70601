// Products whose operands both lie in rows, by Hopper's own instructions: one thread brings tiles of 128 × 64 by bulk tensor copies, two
// warpgroups multiply 64 × 128 results each by wgmma. No warp only copies: two blocks of 256 threads leave 128 registers to each. Compiled
// for sm_80 too, where it is empty and never chosen.
#pragma once
#include "kernels/cuda/product_strips.cuh"
#include "kernels/cuda/sm90/tile.cuh"

namespace lc::cuda::sm90 {

struct ProductShape {
  static constexpr int kTile = 128, kDepth = 64, kStages = 3, kReaders = 2;
  static constexpr int kThreads = kReaders * kWarpgroup;
  using Operand = SwizzledTile<kTile, kDepth>;
  static constexpr std::size_t kShared = kAlignment + kStages * (2 * Operand::kBytes + 2 * sizeof(ptx::Barrier));

  bf16* shared;
  __device__ Operand a(int i) const { return {shared + i % kStages * 2 * Operand::kElements}; }
  __device__ Operand b(int i) const { return {a(i).data + Operand::kElements}; }
  __device__ Ring<kStages> ring() const {
    ptx::Barrier* const barriers = reinterpret_cast<ptx::Barrier*>(shared + kStages * 2 * Operand::kElements);
    return {barriers, barriers + kStages};
  }
};
struct ProductMaps {
  ptx::TensorMap a, b;
};

// product_sm90_kernel: one block computes 128 × 128 results.
// in   a (m, k), b (n, k) bf16      out  what the epilogue does with them
// grid (n / 128, m / 128)   block 256   shared ProductShape::kShared
// moves a once per 128 columns, b once per 128 rows, two steps of the depth ahead
template <class E>
__global__ void __launch_bounds__(ProductShape::kThreads, 2)
    product_sm90_kernel(const __grid_constant__ ProductMaps maps, Extent extent, E epilogue) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using S = ProductShape;
  const S s{aligned_shared()};
  const std::int64_t m = static_cast<std::int64_t>(blockIdx.y) * S::kTile, n = static_cast<std::int64_t>(blockIdx.x) * S::kTile;
  const int steps = static_cast<int>((extent.k + S::kDepth - 1) / S::kDepth);
  if (threadIdx.x == 0) {
    s.ring().init(S::kThreads / kWarpSize);
    ptx::barrier_init_done();
  }
  __syncthreads();
  const auto start = [&](int i) {  // by one warp
    if (threadIdx.x == 0) {
      ptx::Barrier* const full = s.ring().full_of(i);
      s.ring().wait_empty(i);
      ptx::barrier_arrive_expecting(full, 2 * S::Operand::kBytes);
      s.a(i).copy(maps.a, i * S::kDepth, m, full);
      s.b(i).copy(maps.b, i * S::kDepth, n, full);
    }
    __syncwarp();
  };
  if (warp_of_block() == 0) {
    for (int i = 0; i < min(S::kStages, steps); ++i) start(i);
  }
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup;
  Fragment<S::kTile / 8> d{};
  for (int i = 0; i < steps; ++i) {
    s.ring().wait_full(i);
    const std::uint32_t left = s.a(i).rows(64 * group), right = s.b(i).rows(0);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < S::kDepth; k += 16)
      ptx::wgmma<S::kTile, false>(d, left + S::Operand::columns_on(k), right + S::Operand::columns_on(k), i + k > 0);
    ptx::wgmma_commit();
    if (i == 0) continue;
    ptx::wgmma_wait<1>();
    s.ring().release(i - 1);
    if (warp_of_block() == 0 && i - 1 + S::kStages < steps) start(i - 1 + S::kStages);
  }
  ptx::wgmma_wait<0>();
  ptx::wgmma_done(d);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Fragment<8> strip;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) strip[j][e] = d[8 * half + j][e];
    }
    epilogue(strip, m + 64 * group + warp_of_block() % 4 * kStripRows, n + half * kStripColumns);
  }
#endif
}

template <class E>
void product(const char* name, const Queue& queue, const kernels::Rows<const bf16>& a, const kernels::Rows<const bf16>& b,
             const Extent& extent, const E& epilogue) {
  using S = ProductShape;
  const Grid grid{dim3(static_cast<unsigned>(ceil_div(extent.n, S::kTile)), static_cast<unsigned>(ceil_div(extent.m, S::kTile))),
                  dim3(S::kThreads), S::kShared};
  if (extent.n == 0 || extent.m == 0) return;
  launch(name, product_sm90_kernel<E>, grid, queue, ProductMaps{map_of(a, S::kTile), map_of(b, S::kTile)}, extent, epilogue);
}

}  // namespace lc::cuda::sm90
