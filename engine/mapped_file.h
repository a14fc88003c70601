// A file that is read in two ways: through memory, where it is dense and small, and by copies of pieces, which keep nothing of it in this
// process. Cut short meanwhile, copying is a DataError; memory ends the process with one line and exit code 3 in place of SIGBUS.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace lc {

struct MappedPlace;  // what the signal's handler knows of a mapped file

class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // DataError when it cannot be read, ResourceError when it cannot be mapped
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  std::uint64_t size() const { return size_; }  // when it was mapped
  void release() const;                         // what was touched of data() leaves this process; the system may keep it

  void copy(std::uint64_t offset, std::span<std::byte> out) const;  // DataError when it cannot be read
  void copy_soon(std::uint64_t offset, std::uint64_t bytes) const;  // the system begins to read now, nobody waits

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
  MappedPlace* place_ = nullptr;
};

}  // namespace lc
