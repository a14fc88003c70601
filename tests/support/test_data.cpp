#include "tests/support/test_data.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

namespace lc::test {

namespace fs = std::filesystem;

fs::path data_folder() {
  const char* wanted = std::getenv("LANGCELL_TEST_DATA");
  return wanted != nullptr && *wanted != '\0' ? fs::path(wanted) : (fs::path(LC_SOURCE_DIR) / ".." / "shared").lexically_normal();
}

namespace {

// Ends the running test: skipped, or failed where CI promised that nothing is missing.
[[noreturn]] void end_without(const std::string& message) {
  const char* ci = std::getenv("CI");
  const bool required = ci != nullptr && std::string_view(ci) == "true";
  const auto report = [&] {
    if (required) FAIL() << message;
    GTEST_SKIP() << message;
  };
  report();
  const auto kind = required ? testing::TestPartResult::kFatalFailure : testing::TestPartResult::kSkip;
  throw testing::AssertionException(testing::TestPartResult(kind, __FILE__, __LINE__, message.c_str()));
}

}  // namespace

fs::path data(std::string_view name) {
  const fs::path path = data_folder() / name;
  if (!fs::exists(path)) {
    end_without("test data " + path.string() + " is absent; set LANGCELL_TEST_DATA to the folder that holds " + std::string(name));
  }
  return path;
}

fs::path converted_golden() {
  const fs::path source(LC_SOURCE_DIR), out = fs::path(LC_BINARY_DIR) / "golden.safetensors";
  const fs::path golden = data("golden/tiny"), own_python = source / ".venv/bin/python";
  std::string command = fs::exists(own_python) ? "'" + own_python.string() + "'" : "python3";
  for (const fs::path& argument : {source / "tests/interop/convert_golden.py", golden, out}) command += " '" + argument.string() + "'";
  if (std::system(command.c_str()) != 0)
    end_without("the golden data could not be converted; run tools/test.sh, it sets up a Python with numpy");
  return out;
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (fs::temp_directory_path() / "langcell-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::system_error(errno, std::generic_category(), pattern);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace lc::test
