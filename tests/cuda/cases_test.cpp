// Walks every case of every word that has a CUDA file, on the shim, in both thread orders.
#include <gtest/gtest.h>

#include <cctype>

#include "tests/shim/shim.h"
#include "tests/words.h"

namespace lc::test {
namespace {

std::string identifier(const std::string& text) {
  std::string s;
  for (const char c : text) s += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return s;
}

std::vector<OnBoth> cases_on_both() {
  std::vector<OpCase> cpu = all_cases();
  test_queue() = Queue{Device::cuda};
  std::vector<OpCase> cuda = all_cases();
  test_queue() = Queue{};
  std::vector<OnBoth> both;
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    const bool has_cuda = std::string(LC_CUDA_WORDS).find(" " + cpu[i].word + " ") != std::string::npos;
    if (has_cuda && !cpu[i].benchmark_only) both.push_back({std::move(cpu[i]), std::move(cuda[i])});
  }
  return both;
}

class CudaCases : public testing::TestWithParam<OnBoth> {};
TEST_P(CudaCases, agree_with_the_double_reference_and_with_the_cpu) {
  check(GetParam(), {[] { shim::order = shim::Order::forward; }, [] { shim::order = shim::Order::reverse; }});
}
INSTANTIATE_TEST_SUITE_P(every_word, CudaCases, testing::ValuesIn(cases_on_both()), [](const auto& c) {
  return std::to_string(c.index) + "_" + c.param.cpu.word + "_" + identifier(c.param.cpu.name);
});

}  // namespace
}  // namespace lc::test
