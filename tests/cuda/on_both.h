// Every case of every word, built once for the CPU and once for CUDA.
#pragma once
#include <cctype>
#include <ostream>
#include <string>
#include <vector>

#include "tests/words.h"

namespace lc::test {

inline const std::vector<OnBoth>& cases_on_both() {  // made at the first call: every test is a process, and starts with the names of all
  static const std::vector<OnBoth> both = [] {
    std::vector<OpCase> cpu = all_cases();
    test_queue() = Queue{Device::cuda};
    std::vector<OpCase> cuda = all_cases();
    test_queue() = Queue{};
    std::vector<OnBoth> judged;
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      if (!cpu[i].benchmark_only) judged.push_back({std::move(cpu[i]), std::move(cuda[i])});
    }
    return judged;
  }();
  return both;
}

// Of these, in their order: what is looked at a word at a time.
inline std::vector<std::string> words_of(const std::vector<OnBoth>& cases) {
  std::vector<std::string> words;
  for (const OnBoth& c : cases) {
    if (words.empty() || words.back() != c.cpu.word) words.push_back(c.cpu.word);
  }
  return words;
}

inline void PrintTo(const OnBoth& c, std::ostream* out) { *out << c.cpu.word << " / " << c.cpu.name; }

inline std::string name_of(std::size_t index, const OpCase& c) {
  std::string s = std::to_string(index) + "_" + c.word + "_";
  for (const char letter : c.name) s += std::isalnum(static_cast<unsigned char>(letter)) ? letter : '_';
  return s;
}

}  // namespace lc::test
