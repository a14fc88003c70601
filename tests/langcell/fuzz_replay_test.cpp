// A short, fixed form of the fuzzing campaign (tools/fuzz.sh): whole files of each kind, damaged in a few thousand ways that Philox
// chooses.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "engine/atomic_file.h"
#include "kernels/numeric.h"
#include "tests/fuzz/targets.h"
#include "tests/support/test_data.h"

namespace lc::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> files_of(const fs::path& folder) {
  std::vector<std::string> files;
  if (!fs::is_directory(folder)) return files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(read_file(entry.path()));
  return files;
}

// One to four bytes changed, or a piece cut off or doubled.
std::string damaged(std::string file, std::uint32_t number) {
  const Philox r = philox<10>({{number, 0, 0, 0}}, {{1, 2}}), s = philox<10>({{number, 1, 0, 0}}, {{1, 2}});
  const auto place = [&](std::uint32_t word) { return static_cast<std::size_t>(word % file.size()); };
  if (r.word[0] % 8 == 0) return file.substr(0, place(r.word[1]));
  if (r.word[0] % 8 == 1) return file.insert(place(r.word[1]), file.substr(place(r.word[2]), r.word[3] % 40));
  for (std::uint32_t i = 0; i <= r.word[1] % 4; ++i)
    file[place(s.word[i])] = static_cast<char>(r.word[2] >> (8 * i) & (i % 2 ? 0xff : 0x7f));
  return file;
}

class FuzzReplay : public testing::TestWithParam<FuzzTarget> {};

TEST_P(FuzzReplay, DamagedFilesAreReadOrRefusedAndNothingElse) {
  const TemporaryFolder seeds;
  const fs::path source(LC_SOURCE_DIR);
  const std::string command = "python3 '" + (source / "tests/fuzz/make_seeds.py").string() + "' '" + seeds.path().string() + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  const std::string name(GetParam().name);
  std::vector<std::string> files = files_of(seeds.path() / name);
  ASSERT_FALSE(files.empty());
  const std::vector<std::string> kept = files_of(source / "tests/fuzz/kept" / name);
  files.insert(files.end(), kept.begin(), kept.end());
  for (const std::string& file : files) {
    GetParam().read(std::as_bytes(std::span(file)));
    for (std::uint32_t number = 0; number < 1500; ++number) {
      const std::string bad = damaged(file, number);
      ASSERT_NO_THROW(GetParam().read(std::as_bytes(std::span(bad)))) << name << ", damage " << number;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Readers, FuzzReplay, testing::ValuesIn(fuzz_targets().begin(), fuzz_targets().end()),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace lc::test
