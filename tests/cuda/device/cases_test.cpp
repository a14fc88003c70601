// The same walk on a real device: nvcc's kernels against the double reference and the CPU, twice with equal bits. Skips where there is
// none.
#include <gtest/gtest.h>

#include "kernels/cuda/device.h"
#include "tests/cuda/on_both.h"

namespace lc::test {
namespace {

const std::string& why_no_device() {
  static const std::string reason = cuda::why_not({Device::cuda});
  return reason;
}

class DeviceCases : public testing::TestWithParam<OnBoth> {};
TEST_P(DeviceCases, agree_with_the_double_reference_and_with_the_cpu) {
  if (!why_no_device().empty()) GTEST_SKIP() << why_no_device();
  check(GetParam(), {[] {}, [] {}});
}
TEST(DeviceCasesWithNan, keep_the_nan_that_the_reference_keeps) {
  if (!why_no_device().empty()) GTEST_SKIP() << why_no_device();
  for (const OnBoth& c : cases_on_both()) {
    if (c.cuda.word != "matmul") check_nan(c.cuda, Queue{Device::cuda});  // the ReLU of cuBLASLt's epilogue promises nothing of NaN
  }
}
INSTANTIATE_TEST_SUITE_P(every_word, DeviceCases, testing::ValuesIn(why_no_device().empty() ? cases_on_both() : std::vector<OnBoth>(1)),
                         [](const auto& c) { return name_of(c.index, c.param.cpu); });

}  // namespace
}  // namespace lc::test
