// A zip archive of stored members, as torch.save writes one (APPNOTE 6.3). Nothing is ever unpacked: a member is a range of the file.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/input_file.h"

namespace lc {

struct ZipMember {
  std::string name;
  std::uint64_t begin = 0, bytes = 0;  // of the data, within the file
};

// ModelError for a file that is no zip, is cut off, has compressed or encrypted members, members that overlap, or two of one name.
class ZipFile {
 public:
  explicit ZipFile(std::shared_ptr<const InputFile> file);
  static bool is_zip(const InputFile& file);  // by its first bytes

  const std::vector<ZipMember>& members() const { return members_; }  // sorted by name
  const ZipMember* find(std::string_view name) const;
  std::string read(const ZipMember& member, std::uint64_t limit) const;
  const std::shared_ptr<const InputFile>& file() const { return file_; }

 private:
  std::shared_ptr<const InputFile> file_;
  std::vector<ZipMember> members_;
};

}  // namespace lc
