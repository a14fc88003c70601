// Where work goes by name, on the shim, whose one device is always there.
#include <gtest/gtest.h>

#include "engine/errors.h"
#include "engine/memory.h"

namespace lc::test {
namespace {

TEST(CudaDevice, AutoTakesItAndItsNumberCountsFromZero) {
  EXPECT_EQ(queue_named("auto", "--device"), Queue{Device::cuda});
  EXPECT_EQ(queue_named("cuda:0", "--device"), Queue{Device::cuda});
  EXPECT_EQ(devices().size(), 2u);
  EXPECT_EQ(name_of(queue_named("cuda", "--device")), "the shim, compute capability 8.0, 1024 MiB");
}
TEST(CudaDevice, ANumberTooHighSaysHowManyThereAre) {
  try {
    queue_named("cuda:1", "--device");
    FAIL() << "no error";
  } catch (const ResourceError& e) {
    EXPECT_NE(std::string(e.what()).find("no CUDA device 1: this machine has 1"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace lc::test
