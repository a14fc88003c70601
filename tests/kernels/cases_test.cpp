// Walks every case of every word.
#include <gtest/gtest.h>

#include <cctype>

#include "tests/words.h"

namespace lc::test {
namespace {

std::string identifier(const std::string& text) {
  std::string s;
  for (const char c : text) s += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return s;
}

class Cases : public testing::TestWithParam<OpCase> {};
TEST_P(Cases, agrees_with_the_double_reference_and_its_differences) { check(GetParam()); }
INSTANTIATE_TEST_SUITE_P(every_word, Cases, testing::ValuesIn(all_cases()),
                         [](const auto& c) { return std::to_string(c.index) + "_" + c.param.word + "_" + identifier(c.param.name); });

TEST(CasesWithNan, keep_the_nan_that_the_reference_keeps) {
  for (const OpCase& c : all_cases()) check_nan(c, {});
}
TEST(Activations, make_of_nan_what_pytorch_makes) { check_activations_of_nan({}); }

class Wrong : public testing::TestWithParam<WrongCall> {};
TEST_P(Wrong, call_is_refused) { check(GetParam()); }
INSTANTIATE_TEST_SUITE_P(every_word, Wrong, testing::ValuesIn(all_wrong_calls()),
                         [](const auto& c) { return std::to_string(c.index) + "_" + c.param.word + "_" + identifier(c.param.name); });

}  // namespace
}  // namespace lc::test
