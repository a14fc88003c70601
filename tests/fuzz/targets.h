// The readers of foreign files as functions of bytes. A refusal (an Error with exit code 3 or 4) is right; all else is a find.
#pragma once
#include <cstddef>
#include <span>
#include <string_view>

namespace lc::test {

struct FuzzTarget {
  std::string_view name;
  void (*read)(std::span<const std::byte> file);
};
std::span<const FuzzTarget> fuzz_targets();

}  // namespace lc::test
