// Words as people write them into files: with blanks around them, in any case.
#pragma once
#include <string>
#include <string_view>

namespace lc {

inline std::string_view trimmed(std::string_view s) {
  constexpr std::string_view blanks = " \t\r\n";
  const size_t begin = s.find_first_not_of(blanks);
  return begin == std::string_view::npos ? std::string_view() : s.substr(begin, s.find_last_not_of(blanks) - begin + 1);
}

// A to Z in lower case; other letters as they are.
inline std::string folded(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace lc
