// Sums of partial sums, in order: the second half of every gradient of a vector.
#include "kernels/cuda/row_slots.cuh"

namespace lc::cuda {
namespace {

constexpr int kRuns = 8;

// add_partials_kernel: to[c] += Σ over chunks of partial[chunk][c]; a warp sums 32 columns of a run of chunks, the runs are added in order.
// in   partial (chunks, stride)      in and out  to (C)
// grid (C / 32)   block 256 = 8 runs   shared 256 floats
__global__ void __launch_bounds__(kRuns* kWarpSize)
    add_partials_kernel(const float* partial, std::int64_t chunks, std::int64_t stride, float* to, std::int64_t columns) {
  float* const shared = ptx::dynamic_shared<float>();
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * kWarpSize + lane_of_warp();
  const int run = warp_of_block();
  float sum = 0;
  if (c < columns) {
    for (std::int64_t i = chunks * run / kRuns; i < chunks * (run + 1) / kRuns; ++i) sum += partial[i * stride + c];
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (run != 0 || c >= columns) return;
  float total = 0;
#pragma unroll
  for (int r = 0; r < kRuns; ++r) total += shared[r * kWarpSize + lane_of_warp()];
  to[c] += total;
}

}  // namespace

void add_partials(const Queue& queue, const Partials& p, std::span<float* const> to) {
  const Grid grid{dim3(static_cast<unsigned>(ceil_div(p.columns, kWarpSize))), dim3(kRuns * kWarpSize), kRuns * kWarpSize * sizeof(float)};
  for (std::size_t v = 0; v < to.size(); ++v) {
    if (!to[v]) continue;
    launch("add_partials_kernel", add_partials_kernel, grid, queue, p.data + static_cast<std::int64_t>(v) * p.columns, p.chunks,
           p.vectors * p.columns, to[v], p.columns);
  }
}

}  // namespace lc::cuda
