// A regular file that is read at given places: with pread, so that one that shrinks meanwhile is an error and no signal.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace lc {

// All errors are ModelError (4): the files read this way hold models.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t bytes() const { return bytes_; }                    // when it was opened
  bool read(std::uint64_t offset, std::span<std::byte> out) const;  // false: the file ends before

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
};

}  // namespace lc
