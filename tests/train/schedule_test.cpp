#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/errors.h"
#include "tests/support/expect_error.h"

namespace lc {
namespace {

TEST(Schedule, LinearRisesAndFallsAsByHand) {
  const Schedule s{.peak = 10, .steps = 12, .warmup = 4, .decay = Decay::linear};
  const double wanted[] = {2, 4, 6, 8, 10, 8.75, 7.5, 6.25, 5, 3.75, 2.5, 1.25};
  for (int i = 0; i < 12; ++i) EXPECT_DOUBLE_EQ(s.lr(i), wanted[i]) << i;
  EXPECT_EQ(s.lr(12), 0) << "beyond the stage";
}

TEST(Schedule, CosineIsHalfWayDownInTheMiddle) {
  const Schedule s{.peak = 2, .steps = 9, .warmup = 1, .decay = Decay::cosine};
  EXPECT_DOUBLE_EQ(s.lr(0), 1);
  EXPECT_DOUBLE_EQ(s.lr(1), 2);
  EXPECT_DOUBLE_EQ(s.lr(5), 1);
  EXPECT_NEAR(s.lr(3), 1 + std::sqrt(0.5), 1e-15);
  EXPECT_NEAR(s.lr(9), 0, 1e-15);
}

TEST(Schedule, ConstantStaysAfterTheWarmUp) {
  const Schedule s{.peak = 3, .steps = 5, .warmup = 2, .decay = Decay::constant};
  EXPECT_DOUBLE_EQ(s.lr(0), 1);
  EXPECT_DOUBLE_EQ(s.lr(2), 3);
  EXPECT_DOUBLE_EQ(s.lr(4), 3);
}

TEST(Schedule, WithoutWarmUpTheFirstStepRunsAtThePeak) {
  EXPECT_EQ((Schedule{.peak = 3, .steps = 1, .warmup = 0}).lr(0), 3);
  EXPECT_EQ((Schedule{.peak = 3, .steps = 0, .warmup = 0}).lr(0), 3) << "no division by zero";
}

TEST(Schedule, WarmUpIsAShareOrSteps) {
  StageOptions stage;
  stage.warmup = 0.05;
  EXPECT_EQ(warmup_steps(stage, 1000, "stage1"), 50);
  EXPECT_EQ(warmup_steps(stage, 3, "stage1"), 0);
  stage.warmup = 1;
  EXPECT_EQ(warmup_steps(stage, 1000, "stage1"), 1);
  stage.warmup = 500;
  EXPECT_EQ(warmup_steps(stage, 1000, "stage1"), 500);
  stage.warmup = 501;
  const std::string message = test::message_of<UsageError>([&] { (void)warmup_steps(stage, 1000, "stage2"); });
  EXPECT_TRUE(test::holds(message, "stage2.warmup: wanted at most half of the stage's 1000 steps, got 501 steps"));
}

}  // namespace
}  // namespace lc
