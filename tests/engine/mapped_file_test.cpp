#include "engine/mapped_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

std::filesystem::path write_pages(const std::filesystem::path& path) {  // five, each of its own letter
  std::ofstream file(path, std::ios::binary);
  for (char c = 'a'; c < 'f'; ++c) file << std::string(4096, c);
  return path;
}

TEST(MappedFile, IsReadThroughMemoryAndByCopies) {
  const test::TemporaryFolder folder;
  const MappedFile file(write_pages(folder / "f"));
  ASSERT_EQ(file.size(), 5u * 4096);
  std::vector<std::byte> piece(33);
  file.copy_soon(2 * 4096 - 1, piece.size());
  file.copy(2 * 4096 - 1, piece);
  EXPECT_EQ(piece[0], std::byte{'b'});
  EXPECT_EQ(piece[32], std::byte{'c'});
  EXPECT_EQ(file.data()[4 * 4096], std::byte{'e'});
  file.release();
  EXPECT_EQ(file.data()[4 * 4096], std::byte{'e'});
}

TEST(MappedFile, CopyingWhatIsNotThereIsAnErrorOfTheData) {
  const test::TemporaryFolder folder;
  const MappedFile file(write_pages(folder / "f"));
  std::filesystem::resize_file(folder / "f", 3 * 4096 + 5);
  std::vector<std::byte> piece(33);
  EXPECT_NO_THROW(file.copy(2 * 4096, piece));
  const std::string line = test::message_of<DataError>([&] { file.copy(3 * 4096, piece); });
  EXPECT_TRUE(test::holds(line, (folder / "f").string() + ": was cut short while it was in use")) << line;
  EXPECT_THROW(MappedFile(folder / "none"), DataError);
}

TEST(MappedFileDeathTest, TouchingWhatWasCutOffEndsWithOneLineAndThree) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const test::TemporaryFolder folder;
  const auto read_beyond = [&] {
    const MappedFile other(write_pages(folder / "other")), file(write_pages(folder / "cut.h5"));
    { const MappedFile gone(folder / "other"); }
    std::filesystem::resize_file(folder / "cut.h5", 4096);
    std::fprintf(stderr, "%c", static_cast<char>(file.data()[3 * 4096]));
  };
  EXPECT_EXIT(read_beyond(), testing::ExitedWithCode(3),
              "^langcell: error: .*cut.h5: a part cannot be read any more: the file was cut short");
}

}  // namespace
}  // namespace lc
