// What the losses stand on: exp to the last bit or two, rows of −∞, NaN, and products that do not depend on the threads.
#include "kernels/cpu/loss_tiles.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace lc::test {
namespace {

using namespace kernels::loss_tiles;
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> exp_of(std::vector<float> x, float shift = 0, float factor = 1) {
  const auto n = static_cast<std::int64_t>(x.size());
  x.resize(x.size() + kRowPadding);
  const std::vector<float> bias(x.size());
  exponentials({.scores = x.data(), .bias = bias.data(), .n = n, .shift = shift, .factor = factor});
  x.resize(static_cast<std::size_t>(n));
  return x;
}

TEST(loss_tiles, exp_is_right_to_two_units_in_the_last_place) {
  std::vector<float> x;
  for (int i = -86999; i <= 20000; ++i) x.push_back(static_cast<float>(i) * 1e-3f);
  const std::vector<float> y = exp_of(x);
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i] / std::exp(static_cast<double>(x[i])), 1, 1.2e-7) << x[i];
}

TEST(loss_tiles, exp_of_what_is_far_below_is_zero_and_nan_stays_nan) {
  const std::vector<float> y = exp_of({-88, -1000, -kInfinity, kNan, 0});
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[1], 0);
  EXPECT_EQ(y[2], 0);
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_EQ(y[4], 1);
}

LogSumExp sum_of(std::vector<float> x) {
  const auto n = static_cast<std::int64_t>(x.size());
  x.resize(x.size() + kRowPadding);
  const std::vector<float> bias(x.size());
  return sum_of_exponentials(x.data(), bias.data(), n);
}

TEST(loss_tiles, a_row_of_nothing_adds_nothing) {
  LogSumExp all;
  all.merge(sum_of({-kInfinity, -kInfinity}));
  EXPECT_EQ(all.sum, 0);
  all.merge(sum_of({-300, -301}));
  all.merge(sum_of({-kInfinity}));
  EXPECT_NEAR(all.value(), -300 + std::log1p(std::exp(-1.0)), 1e-6);
}

TEST(loss_tiles, a_nan_among_the_scores_is_not_lost) {
  for (std::size_t place = 0; place < 37; ++place) {
    std::vector<float> x(37, -kInfinity);
    x[place] = kNan;
    EXPECT_TRUE(std::isnan(sum_of(x).value())) << place;
    x.assign(37, 1.0f);
    x[place] = kNan;
    EXPECT_TRUE(std::isnan(sum_of(x).value())) << place;
  }
}

TEST(loss_tiles, a_product_has_the_same_bits_at_any_number_of_threads) {
  constexpr std::int64_t rows = 65, columns = 33, inner = 129;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> left(rows * inner), right(inner * columns);
  for (float& x : left) x = normal(random);
  for (float& x : right) x = normal(random);
  const auto product = [&](int threads) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    std::vector<float> out(rows * columns);
    multiply({.rows = rows,
              .columns = columns,
              .inner = inner,
              .left = left.data(),
              .left_stride = inner,
              .right = right.data(),
              .right_stride = columns,
              .out = out.data(),
              .out_stride = columns});
    EXPECT_EQ(omp_get_max_threads(), threads);
    omp_set_num_threads(before);
    return out;
  };
  EXPECT_EQ(product(1), product(3));
}

}  // namespace
}  // namespace lc::test
