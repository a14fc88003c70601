// Tiles in shared memory: two chained products of one block against plain loops, without a bank conflict.
#include "kernels/cuda/tile.cuh"

#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda/launch.h"

namespace lc::cuda {
namespace {

constexpr int kSize = 64, kTileThreads = 128;

// two_products_kernel: z = bf16(x yᵀ) y for x (valid, D), y (64, D), a warp for sixteen rows of x.
template <int D>
__global__ void two_products_kernel(const bf16* x_rows, const bf16* y_rows, int valid, float* z) {
  bf16* shared = ptx::dynamic_shared<bf16>();
  const Tile<kSize, D> x{shared}, y{shared + Tile<kSize, D>::kElements};
  x.template load<kTileThreads>(x_rows, D, valid), y.template load<kTileThreads>(y_rows, D, kSize);
  ptx::copy_async_commit();
  ptx::copy_async_wait<0>();
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32, first = static_cast<int>(threadIdx.x) / 32 * 16;
  Fragment<kSize / 8> s{};
  for (int k = 0; k < D; k += 16) {
    std::uint32_t a[4], b[4];
    x.a(a, first, k);
    for (int n = 0; n < kSize; n += 16) {
      y.b_rows(b, n, k);
      ptx::mma_bf16(s[n / 8], a, b[0], b[1]), ptx::mma_bf16(s[n / 8 + 1], a, b[2], b[3]);
    }
  }
  Fragment<D / 8> out{};
  for (int k = 0; k < kSize; k += 16) {
    std::uint32_t a[4], b[4];
    a_of_fragments(a, s[k / 8], s[k / 8 + 1]);
    for (int n = 0; n < D; n += 16) {
      y.b_columns(b, k, n);
      ptx::mma_bf16(out[n / 8], a, b[0], b[1]), ptx::mma_bf16(out[n / 8 + 1], a, b[2], b[3]);
    }
  }
  for (int j = 0; j < D / 8; ++j) {
    for (int e = 0; e < 4; ++e) z[(first + lane / 4 + 8 * (e / 2)) * D + 8 * j + 2 * (lane % 4) + e % 2] = out[j][e];
  }
}

std::vector<float> random_numbers(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(count);
  for (float& x : v) x = to_float(from_float<bf16>(normal(random)));
  return v;
}
std::vector<bf16> rounded(const std::vector<float>& v) {
  std::vector<bf16> r;
  for (const float x : v) r.push_back(from_float<bf16>(x));
  return r;
}

template <int D>
void expect_two_products(int valid) {
  const std::vector<float> x = random_numbers(kSize * D, 1), y = random_numbers(kSize * D, 2);
  const std::vector<bf16> x_rows = rounded(x), y_rows = rounded(y);
  std::vector<float> z(kSize * D);
  shim::stats = {};
  const Grid grid{1, kTileThreads, 2 * Tile<kSize, D>::kBytes};
  launch("two_products_kernel", two_products_kernel<D>, grid, {}, x_rows.data(), y_rows.data(), valid, z.data());
  EXPECT_GT(shim::stats.ldmatrix, 0);
  EXPECT_EQ(shim::stats.ldmatrix_extra, 0) << "bank conflicts";
  for (std::size_t i = 0; i < kSize; ++i) {
    double wanted[D] = {};
    for (std::size_t n = 0; n < kSize && i < static_cast<std::size_t>(valid); ++n) {
      double s = 0;
      for (std::size_t k = 0; k < D; ++k) s += x[i * D + k] * y[n * D + k];
      for (std::size_t c = 0; c < D; ++c) wanted[c] += s * y[n * D + c];
    }
    for (std::size_t c = 0; c < D; ++c) ASSERT_NEAR(z[i * D + c], wanted[c], 0.6) << i << ", " << c;  // of about 100: s is rounded to bf16
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
