// Where work goes by name, in a program without CUDA kernels.
#include <gtest/gtest.h>

#include "engine/comm.h"
#include "engine/errors.h"
#include "engine/memory.h"
#include "tests/support/expect_error.h"

namespace lc::test {
namespace {

TEST(device, auto_is_the_cpu_where_there_is_no_gpu) {
  EXPECT_EQ(queue_named("auto", "--device"), Queue{});
  EXPECT_EQ(queue_named("cpu", "--device"), Queue{});
  EXPECT_EQ(devices(), std::vector<std::string>{"cpu"});
}

TEST(device, cuda_says_why_it_cannot_and_what_to_do) {
  for (const char* name : {"cuda", "cuda:3"}) {
    const std::string text = message_of<ResourceError>([&] { queue_named(name, "--device"); });
    EXPECT_TRUE(holds(text, "this build has no CUDA"));
    EXPECT_TRUE(holds(text, "--device cpu"));
  }
}

TEST(device, ranks_on_gpus_say_what_they_lack) {
  const auto host = comm_alone();
  const std::string text = message_of<UsageError>([&] { comm_nccl(*host, {.queue = {Device::cuda}}); });
  EXPECT_TRUE(holds(text, "this build has no NCCL") && holds(text, "run one rank")) << text;
}

TEST(device, other_names_are_refused_with_the_key_they_came_from) {
  for (const char* name : {"gpu", "", "cuda:", "cuda:x", "cuda:-1", "cuda:12345", "CUDA"}) {
    EXPECT_TRUE(
        holds(message_of<UsageError>([&] { queue_named(name, "train.device"); }), "train.device: wanted auto, cpu, cuda or cuda:N"));
  }
}

}  // namespace
}  // namespace lc::test
