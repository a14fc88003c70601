// Files that tests read and folders that they write.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace lc::test {

std::filesystem::path data_folder();  // $LANGCELL_TEST_DATA, default ../shared beside the source tree

// Path of a file or folder below data_folder(). Where it is absent the running test ends as skipped, or as failed with CI=true.
// Works from functions that a test calls too: the test ends by GoogleTest's own exception.
std::filesystem::path data(std::string_view name);

// The golden arrays as one safetensors file (tests/interop/convert_golden.py), made on first use.
std::filesystem::path converted_golden();

// An empty folder that disappears with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace lc::test
