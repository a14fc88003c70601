// Where work goes by name, on the shim, whose one device is always there.
#include <gtest/gtest.h>

#include "engine/errors.h"
#include "engine/launch.h"
#include "engine/memory.h"
#include "tests/shim/shim.h"

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

class CudaDeviceOfRank : public testing::Test {
 protected:
  void TearDown() override { shim::device_count = 1; }
  static Queue queue_of(int local_rank, const std::string& device) {
    return queue_of_rank(device, [number = std::to_string(local_rank)](const char* name) {
      return std::string(name) == "OMPI_COMM_WORLD_LOCAL_RANK" ? number.c_str() : nullptr;
    });
  }
};
TEST_F(CudaDeviceOfRank, IsTheOneOfItsNumberOnItsMachine) {
  shim::device_count = 4;
  for (const char* device : {"auto", "cuda"}) {
    EXPECT_EQ(queue_of(0, device), (Queue{Device::cuda, 0}));
    EXPECT_EQ(queue_of(3, device), (Queue{Device::cuda, 3}));
  }
  EXPECT_EQ(queue_of(3, "cpu"), Queue{});
  EXPECT_THROW(queue_of(1, "cuda:1"), UsageError);
  EXPECT_THROW(queue_of_rank("cuda", [](const char*) { return nullptr; }), UsageError);
}
TEST_F(CudaDeviceOfRank, IsTheOnlyOneWhereALauncherShowsEachItsOwn) { EXPECT_EQ(queue_of(3, "cuda"), (Queue{Device::cuda, 0})); }
TEST_F(CudaDeviceOfRank, IsRefusedWhereThereAreFewerThanRanks) {
  shim::device_count = 2;
  try {
    queue_of(2, "auto");
    FAIL() << "no error";
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("rank 2 of this machine has no GPU, there are 2"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace lc::test
