// A zip archive of stored members, each aligned to 64 bytes (APPNOTE 6.3), as torch.save and numpy.savez write them. Atomic.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "engine/atomic_file.h"

namespace lc {

class ZipWriter {
 public:
  explicit ZipWriter(const std::filesystem::path& path, Existing existing = Existing::replace) : file_(path, existing), path_(path) {}
  // ResourceError when the archive would pass 4 GiB, which this form cannot hold.
  void add(const std::string& name, std::string_view data);
  void commit();

 private:
  void write(std::string_view bytes) { file_.write(bytes), at_ += bytes.size(); }

  AtomicFile file_;
  std::filesystem::path path_;
  std::string directory_;
  std::uint64_t at_ = 0;
  std::uint16_t members_ = 0;
};

}  // namespace lc
