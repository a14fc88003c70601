// libFuzzer's entry; the environment variable LANGCELL_FUZZ chooses the reader; "list" names them.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tests/fuzz/targets.h"

namespace {

const lc::test::FuzzTarget& target() {
  static const lc::test::FuzzTarget& chosen = []() -> const lc::test::FuzzTarget& {
    const char* wanted = std::getenv("LANGCELL_FUZZ");
    for (const lc::test::FuzzTarget& t : lc::test::fuzz_targets()) {
      if (wanted && t.name == wanted) return t;
      if (wanted && wanted == std::string_view("list")) std::printf("%s\n", std::string(t.name).c_str());
    }
    if (wanted && wanted == std::string_view("list")) std::exit(0);
    std::fputs("LANGCELL_FUZZ names no reader; tests/fuzz/targets.cpp lists them\n", stderr);
    std::exit(2);
  }();
  return chosen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  target().read(std::as_bytes(std::span(data, size)));
  return 0;
}
