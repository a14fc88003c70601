// Walks every case of every word on the shim, in both thread orders.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "tests/cuda/on_both.h"
#include "tests/shim/shim.h"

namespace lc::test {
namespace {

// Both thread orders; under ASan one, whose addresses are those of the other.
std::vector<std::function<void()>> orders() {
  std::vector<std::function<void()>> all = {[] { shim::order = shim::Order::reverse; }};
#ifndef __SANITIZE_ADDRESS__
  all.insert(all.begin(), [] { shim::order = shim::Order::forward; });
#endif
  return all;
}

class CudaCases : public testing::TestWithParam<OnBoth> {};
TEST_P(CudaCases, agree_with_the_double_reference_and_with_the_cpu) { check(GetParam(), orders()); }
// A word at a time: each is quick.
class CudaCasesOfWord : public testing::TestWithParam<std::string> {};
TEST_P(CudaCasesOfWord, keep_the_nan_that_the_reference_keeps) {
  for (const OnBoth& c : cases_on_both()) {
    if (c.cuda.word == GetParam()) check_nan(c.cuda, Queue{Device::cuda});
  }
}
INSTANTIATE_TEST_SUITE_P(words, CudaCasesOfWord, testing::ValuesIn(words_of(cases_on_both())),
                         [](const auto& c) { return "with_" + c.param + "_and_nan"; });
TEST(CudaActivations, make_of_nan_what_pytorch_makes) { check_activations_of_nan(Queue{Device::cuda}); }
INSTANTIATE_TEST_SUITE_P(every_word, CudaCases, testing::ValuesIn(cases_on_both()),
                         [](const auto& c) { return name_of(c.index, c.param.cpu); });

// Once more by Hopper's own instructions.
struct OnHopper {
  OnHopper() { shim::compute_major = 9, shim::shared_limit = 227 * 1024; }
  ~OnHopper() { shim::compute_major = 8, shim::shared_limit = 163 * 1024; }
  OnHopper(const OnHopper&) = delete;
  OnHopper& operator=(const OnHopper&) = delete;
};
class HopperCases : public testing::TestWithParam<OnBoth> {
  OnHopper hopper_;
};
TEST_P(HopperCases, agree_with_the_double_reference_and_with_the_cpu) { check(GetParam(), orders(), {DType::bf16}); }
const std::vector<OnBoth>& hopper_on_both() {
  static const std::vector<OnBoth> some = [] {
    std::vector<OnBoth> cases = cases_on_both();
    std::erase_if(cases, [](const OnBoth& c) {
      return c.cpu.word != "attention" && c.cpu.word != "cross_entropy" && c.cpu.word != "infonce" && c.cpu.word != "matmul";
    });
    return cases;
  }();
  return some;
}
class HopperCasesOfWord : public testing::TestWithParam<std::string> {};
TEST_P(HopperCasesOfWord, keep_the_nan_that_the_reference_keeps) {
  const OnHopper hopper;
  for (const OnBoth& c : hopper_on_both()) {
    if (c.cuda.word == GetParam()) check_nan(c.cuda, Queue{Device::cuda}, {DType::bf16});
  }
}
INSTANTIATE_TEST_SUITE_P(words, HopperCasesOfWord, testing::ValuesIn(words_of(hopper_on_both())),
                         [](const auto& c) { return "with_" + c.param + "_and_nan"; });
INSTANTIATE_TEST_SUITE_P(words, HopperCases, testing::ValuesIn(hopper_on_both()),
                         [](const auto& c) { return name_of(c.index, c.param.cpu); });

}  // namespace
}  // namespace lc::test
