// Walks every case of every word on the shim, in both thread orders.
#include <gtest/gtest.h>

#include "tests/cuda/on_both.h"
#include "tests/shim/shim.h"

namespace lc::test {
namespace {

class CudaCases : public testing::TestWithParam<OnBoth> {};
TEST_P(CudaCases, agree_with_the_double_reference_and_with_the_cpu) {
  check(GetParam(), {[] { shim::order = shim::Order::forward; }, [] { shim::order = shim::Order::reverse; }});
}
INSTANTIATE_TEST_SUITE_P(every_word, CudaCases, testing::ValuesIn(cases_on_both()),
                         [](const auto& c) { return name_of(c.index, c.param.cpu); });

}  // namespace
}  // namespace lc::test
