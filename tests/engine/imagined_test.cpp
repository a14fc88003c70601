// Queues that stand for a device and use none: memory is counted, nothing is computed.
#include <gtest/gtest.h>

#include "engine/memory.h"
#include "engine/ops.h"
#include "engine/tape.h"

namespace lc {
namespace {

TEST(ImaginedQueue, CountsMemoryThatIsNotThere) {
  const Queue queue = imagined_queue(Device::cuda);
  {
    const Tensor large = Tensor::empty({std::int64_t{1} << 24, 1 << 16}, DType::f32, queue);  // 4 TiB
    EXPECT_EQ(memory_use(queue).in_use, std::size_t{1} << 42);
  }
  EXPECT_EQ(memory_use(queue).in_use, 0u);
  EXPECT_EQ(memory_use(queue).peak, std::size_t{1} << 42);
  EXPECT_EQ(memory_use(imagined_queue(Device::cuda)).peak, 0u) << "each has its own account";
}

TEST(ImaginedQueue, TakesWhatTheDeviceItStandsForWouldTake) {
  const Queue cpu = imagined_queue(Device::cpu), cuda = imagined_queue(Device::cuda);
  const MemoryUse before = memory_use(Queue{});
  const Tensor real = Tensor::empty({33, 100}, DType::f32, Queue{}), as_cpu = Tensor::empty({33, 100}, DType::f32, cpu),
               as_cuda = Tensor::empty({33, 100}, DType::f32, cuda);
  EXPECT_EQ(memory_use(cpu).in_use, memory_use(Queue{}).in_use - before.in_use) << "whole granules of rows, classes of sizes";
  EXPECT_EQ(memory_use(cuda).in_use, 33u * 100 * 4);
}

TEST(ImaginedQueue, OperatorsPlanAllocateAndRecordButComputeNothing) {
  const Queue queue = imagined_queue(Device::cpu);
  Tape tape;
  const Tensor rows = Tensor::from(std::span<const float>(std::vector<float>(65 * 33, 2.0f)), {65, 33}, queue);
  const Tensor watched = tape.watch(rows), w = Tensor::empty({7, 33}, DType::f32, queue);
  const Tensor y = linear(watched, w, {});
  EXPECT_EQ(y.shape(), (Shape{65, 7}));
  EXPECT_EQ(y.to_host<float>(), std::vector<float>(65 * 7, 0.0f));
  tape.backward({{y, y.detached()}});
  EXPECT_EQ(tape.gradient(watched).shape(), rows.shape()) << "backward asked for its place";
}

}  // namespace
}  // namespace lc
