// Adding rows by index takes steps in proportion to the rows, not to their square: a large batch has 80,000 masked ones.
#include <gtest/gtest.h>

#include <vector>

#include "tests/shim/shim.h"
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

// The shim's changes from thread to thread: 32 for every vote of a warp.
long long steps_to_add(const std::vector<std::int32_t>& index) {
  const Queue queue{Device::cuda};
  const auto n = static_cast<std::int64_t>(index.size());
  const Tensor x = Tensor::zeros({n, 1}, DType::f32, queue), rows = Tensor::zeros({n, 1}, DType::f32, queue),
               there = Tensor::from(index, queue);
  const long long before = shim::stats.switches;
  rows_add(x, rows, there);
  return shim::stats.switches - before;
}

TEST(CudaRows, rows_that_differ_are_added_in_steps_that_grow_as_they_do) {
  const auto backwards = [](std::int32_t n) {
    std::vector<std::int32_t> index;
    for (std::int32_t i = 0; i < n; ++i) index.push_back(n - 1 - i);
    return index;
  };
  const long long some = steps_to_add(backwards(1000)), more = steps_to_add(backwards(4000));
  EXPECT_GT(some, 1000);
  EXPECT_LT(more, 5 * some);
}

}  // namespace
}  // namespace lc::test
