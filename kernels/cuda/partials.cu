// Sums of partial sums, in order: the second half of every gradient of a vector.
#include <algorithm>

#include "kernels/cuda/row_slots.cuh"

namespace lc::cuda {
namespace {

constexpr int kRuns = 8;

constexpr int kVectors = 4;
struct Targets {
  float* of[kVectors];
};

// add_partials_kernel: to[v][c] += Σ over chunks of partial[chunk][v][c]; a warp sums 32 columns of a run of chunks, the runs are added in
// order.
// in   partial (chunks, vectors, C)      in and out  to (C) of each vector that is wanted
// grid (C / 32, vectors)   block 256 = 8 runs   shared 256 floats
__global__ void __launch_bounds__(kRuns* kWarpSize) add_partials_kernel(Partials p, Targets to) {
  float* const shared = ptx::dynamic_shared<float>();
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * kWarpSize + lane_of_warp(), v = blockIdx.y;
  float* target = to.of[0];
#pragma unroll
  for (int i = 1; i < kVectors; ++i) target = v == i ? to.of[i] : target;
  if (target == nullptr) return;
  const int run = warp_of_block();
  float sum = 0;
  if (c < p.columns) {
#pragma unroll 8
    for (std::int64_t i = p.chunks * run / kRuns; i < p.chunks * (run + 1) / kRuns; ++i) {
      sum += p.data[(i * p.vectors + v) * p.columns + c];
    }
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (run != 0 || c >= p.columns) return;
  float total = 0;
#pragma unroll
  for (int r = 0; r < kRuns; ++r) total += shared[r * kWarpSize + lane_of_warp()];
  target[c] += total;
}

}  // namespace

void add_partials(const Queue& queue, const Partials& p, std::span<float* const> to) {
  Targets targets{};
  std::ranges::copy(to, targets.of);
  if (std::ranges::none_of(to, [](const float* t) { return t != nullptr; })) return;
  const Grid grid{dim3(static_cast<unsigned>(ceil_div(p.columns, kWarpSize)), static_cast<unsigned>(to.size())), dim3(kRuns * kWarpSize),
                  kRuns * kWarpSize * sizeof(float)};
  launch("add_partials_kernel", add_partials_kernel, grid, queue, p, targets);
}

}  // namespace lc::cuda
