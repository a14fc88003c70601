// Signals that ask for a stop find the program in the middle of a product.
#include "train/stop.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>
#include <vector>

#include "engine/ops.h"

namespace lc::test {
namespace {

TEST(StopRequest, is_heard_of_and_told_by_name) {
  const StopRequest listening;
  EXPECT_FALSE(StopRequest::asked());
  std::raise(SIGUSR1);
  EXPECT_TRUE(StopRequest::asked());
  EXPECT_STREQ(StopRequest::signal_name(), "SIGUSR1");
}

TEST(StopRequest, ends_the_process_when_it_comes_twice) {
  EXPECT_EXIT(
      {
        const StopRequest listening;
        std::raise(SIGTERM);
        std::raise(SIGTERM);
      },
      testing::KilledBySignal(SIGTERM), "");
}

// Long sums at few outputs are where oneDNN's product had its stack elsewhere: without a stack of their own, some ten signals of these
// destroy the heap.
TEST(StopRequest, harms_no_product_it_interrupts) {
  const Queue cpu{};
  const Tensor a = Tensor::from(std::span<const float>(std::vector<float>(33 * 700, 1.0f)), Shape{33, 700}, cpu);
  const Tensor b = Tensor::from(std::span<const float>(std::vector<float>(64 * 700, 1.0f)), Shape{64, 700}, cpu);
  for (int n = 0; n < 200; ++n) {
    const StopRequest listening;
    std::thread other([n] {
      std::this_thread::sleep_for(std::chrono::microseconds(200 + n));
      ::kill(::getpid(), SIGUSR1);
    });
    while (!StopRequest::asked()) {
      const Tensor c = linear(a, b, Tensor());
      ASSERT_EQ(c.to_host<float>()[5], 700.0f);
    }
    other.join();
  }
}

}  // namespace
}  // namespace lc::test
