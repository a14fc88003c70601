// One warp's view of ldmatrix and mma, written out: the same file runs on the twins and on a device.
#include "kernels/cuda/launch.h"
#include "tests/cuda/lane_maps.h"

namespace lc::test {
namespace {

using cuda::Grid;

// lane_maps_kernel: 32 rows of 8 elements that hold their own number are loaded plain and transposed; then c = a b with chosen elements.
// in   a, b registers (32, 4), (32, 2)      out  plain, transposed (32, 4), c (32, 4)
// grid (1)   block 32   shared 512 bytes
__global__ void lane_maps_kernel(const std::uint32_t* a, const std::uint32_t* b, std::uint32_t* plain, std::uint32_t* transposed,
                                 float* c) {
  auto* const rows = ptx::dynamic_shared<std::uint16_t>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; ++i) rows[lane * 8 + i] = static_cast<std::uint16_t>(lane * 8 + i);
  __syncthreads();
  std::uint32_t r[4];
  ptx::ldmatrix_x4(r, rows + lane * 8);
  for (int i = 0; i < 4; ++i) plain[lane * 4 + i] = r[i];
  ptx::ldmatrix_x4_trans(r, rows + lane * 8);
  for (int i = 0; i < 4; ++i) transposed[lane * 4 + i] = r[i];
  const std::uint32_t left[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
  float sum[4] = {0, 0, 0, 0};
  ptx::mma_bf16(sum, left, b[lane * 2], b[lane * 2 + 1]);
  for (int i = 0; i < 4; ++i) c[lane * 4 + i] = sum[i];
}

}  // namespace

void run_lane_maps(const Queue& queue, const LaneMaps& m) {
  cuda::launch("lane_maps_kernel", lane_maps_kernel, Grid{dim3(1), dim3(32), 512}, queue, m.a, m.b, m.plain, m.transposed, m.c);
}

}  // namespace lc::test
