// Tiles in shared memory: two chained products of one block against plain loops, without a bank conflict.
#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/tile.cuh"

namespace lc::cuda {
namespace {

constexpr int kSize = 64, kThreads = 128;

// two_products_kernel: z = bf16(x yᵀ) y for x (valid, D), y (64, D), a warp for sixteen rows of x.
template <int D>
__global__ void two_products_kernel(const bf16* x_rows, const bf16* y_rows, int valid, float* z) {
  bf16* shared = ptx::dynamic_shared<bf16>();
  const Tile<kSize, D> x{shared}, y{shared + Tile<kSize, D>::kElements};
  x.template load<kThreads>(x_rows, D, valid), y.template load<kThreads>(y_rows, D, kSize);
  ptx::copy_async_commit();
  ptx::copy_async_wait<0>();
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32, first = static_cast<int>(threadIdx.x) / 32 * 16;
  Fragment<kSize / 8> s{};
  for (int k = 0; k < D; k += 16) {
    std::uint32_t a[4], b[4];
    x.a(a, first, k);
    for (int n = 0; n < kSize; n += 16) y.b_rows(b, n, k), ptx::mma_bf16(s[n / 8], a, b[0], b[1]), ptx::mma_bf16(s[n / 8 + 1], a, b[2], b[3]);
  }
  Fragment<D / 8> out{};
  for (int k = 0; k < kSize; k += 16) {
    std::uint32_t a[4], b[4];
    a_of_fragments(a, s[k / 8], s[k / 8 + 1]);
    for (int n = 0; n < D; n += 16) y.b_columns(b, k, n), ptx::mma_bf16(out[n / 8], a, b[0], b[1]), ptx::mma_bf16(out[n / 8 + 1], a, b[2], b[3]);
  }
  for (int j = 0; j < D / 8; ++j) {
    for (int e = 0; e < 4; ++e) z[(first + lane / 4 + 8 * (e / 2)) * D + 8 * j + 2 * (lane % 4) + e % 2] = out[j][e];
  }
}

std::vector<bf16> random_rows(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<bf16> v(static_cast<std::size_t>(count));
  for (bf16& x : v) x = from_float<bf16>(normal(random));
  return v;
}

template <int D>
void expect_two_products(int valid) {
  std::vector<bf16> x = random_rows(kSize * D, 1), y = random_rows(kSize * D, 2);
  std::vector<float> z(kSize * D);
  shim::stats = {};
  launch("two_products_kernel", two_products_kernel<D>, {dim3(1), dim3(kThreads), 2 * Tile<kSize, D>::kBytes}, {}, x.data(), y.data(), valid, z.data());
  EXPECT_GT(shim::stats.ldmatrix, 0);
  EXPECT_EQ(shim::stats.ldmatrix_extra, 0) << "bank conflicts";
  for (int i = 0; i < kSize; ++i) {
    std::vector<double> s(kSize);
    for (int n = 0; n < kSize; ++n) {
      for (int k = 0; k < D && i < valid; ++k) s[static_cast<std::size_t>(n)] += to_float(x[static_cast<std::size_t>(i * D + k)]) * to_float(y[static_cast<std::size_t>(n * D + k)]);
    }
    for (int c = 0; c < D; ++c) {
      double wanted = 0;
      for (int n = 0; n < kSize; ++n) wanted += s[static_cast<std::size_t>(n)] * to_float(y[static_cast<std::size_t>(n * D + c)]);
      ASSERT_NEAR(z[static_cast<std::size_t>(i * D + c)], wanted, 0.6) << i << ", " << c;  // of about 100: the products are rounded to bf16
    }
  }
}

TEST(Tile, ChainedProductsOfAnyWidthAreRightAndWithoutBankConflicts) {
  for (const auto order : {shim::Order::forward, shim::Order::reverse}) {
    shim::order = order;
    expect_two_products<32>(64);
    expect_two_products<64>(33);
    expect_two_products<96>(1);
    expect_two_products<128>(0);
  }
  shim::order = shim::Order::forward;
}

}  // namespace
}  // namespace lc::cuda
