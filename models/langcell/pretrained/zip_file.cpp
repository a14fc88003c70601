#include "models/langcell/pretrained/zip_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/errors.h"

namespace lc {
namespace {

constexpr std::uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr std::uint64_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kCentralBytes = 46, kLocalBytes = 30;
constexpr std::uint64_t kLongestComment = 0xffff, kMostMembers = 100'000, kLongestDirectory = std::uint64_t{64} << 20;

[[noreturn]] void refuse(const InputFile& file, std::string_view found) {
  throw ModelError(
      fmt::format("{}: {}; the file is damaged or was not written by torch.save: fetch or write it again", file.path().string(), found));
}

// Little-endian numbers of a piece of the file; what lies outside it is an error, never a read.
class Fields {
 public:
  Fields(const InputFile& file, std::uint64_t begin, std::uint64_t bytes) : file_(file), bytes_(static_cast<size_t>(bytes)) {
    if (begin > file.bytes() || bytes > file.bytes() - begin || !file.read(begin, std::as_writable_bytes(std::span(bytes_))))
      refuse(file, "it ends within its directory");
  }
  template <class T>
  T at(std::uint64_t offset) const {
    T value{};
    if (offset > bytes_.size() || sizeof(T) > bytes_.size() - offset) refuse(file_, "a field of its directory is cut off");
    std::memcpy(&value, bytes_.data() + offset, sizeof(T));
    return value;
  }
  std::string text(std::uint64_t offset, std::uint64_t bytes) const {
    if (offset > bytes_.size() || bytes > bytes_.size() - offset) refuse(file_, "a name of its directory is cut off");
    return {bytes_.data() + offset, static_cast<size_t>(bytes)};
  }
  std::uint64_t size() const { return bytes_.size(); }

 private:
  const InputFile& file_;
  std::vector<char> bytes_;
};

struct Directory {
  std::uint64_t begin = 0, bytes = 0, members = 0;
};

Directory find_directory(const InputFile& file) {
  if (file.bytes() < kEndBytes) refuse(file, fmt::format("it has {} bytes, too few for a zip archive", file.bytes()));
  const std::uint64_t tail_bytes = std::min(file.bytes(), kEndBytes + kLongestComment), tail_begin = file.bytes() - tail_bytes;
  const Fields tail(file, tail_begin, tail_bytes);
  for (std::uint64_t at = tail_bytes - kEndBytes + 1; at-- > 0;) {
    if (tail.at<std::uint32_t>(at) != kEnd || at + kEndBytes + tail.at<std::uint16_t>(at + 20) != tail_bytes) continue;
    Directory d{tail.at<std::uint32_t>(at + 16), tail.at<std::uint32_t>(at + 12), tail.at<std::uint16_t>(at + 10)};
    const std::uint64_t end = tail_begin + at;
    if (end >= kLocatorBytes) {
      const Fields locator(file, end - kLocatorBytes, kLocatorBytes);
      if (locator.at<std::uint32_t>(0) == kLocator64) {
        const Fields end64(file, locator.at<std::uint64_t>(8), kEnd64Bytes);
        if (end64.at<std::uint32_t>(0) != kEnd64) refuse(file, "the end of its zip64 directory is not where it should be");
        d = {end64.at<std::uint64_t>(48), end64.at<std::uint64_t>(40), end64.at<std::uint64_t>(32)};
      }
    }
    return d;
  }
  refuse(file, "the directory of the zip archive is missing (cut off?)");
}

struct CentralEntry {
  ZipMember member;
  std::uint64_t local = 0, next = 0;
};

// Sizes and place of a large member lie in the extra field of kind 1, in this order, where the plain field is all ones.
void read_zip64(const InputFile& file, const Fields& directory, std::uint64_t at, std::uint64_t extra_bytes, CentralEntry& e,
                std::uint64_t& packed) {
  for (const std::uint64_t end = at + extra_bytes; at + 4 <= end;) {
    const auto kind = directory.at<std::uint16_t>(at);
    const std::uint64_t bytes = directory.at<std::uint16_t>(at + 2);
    std::uint64_t field = at + 4;
    const std::uint64_t field_end = field + bytes;
    if (field_end > end) refuse(file, "an extra field of its directory is cut off");
    for (std::uint64_t* value : {&e.member.bytes, &packed, &e.local}) {
      if (kind != 1 || *value != 0xffffffffu) continue;
      if (field + 8 > field_end) refuse(file, "a zip64 field of its directory is cut off");
      *value = directory.at<std::uint64_t>(field), field += 8;
    }
    at = field_end;
  }
}

CentralEntry read_entry(const InputFile& file, const Fields& directory, std::uint64_t at) {
  if (directory.at<std::uint32_t>(at) != kCentral) refuse(file, "an entry of its directory does not begin where it should");
  const std::uint64_t name_bytes = directory.at<std::uint16_t>(at + 28), extra_bytes = directory.at<std::uint16_t>(at + 30);
  CentralEntry e;
  e.member.name = directory.text(at + kCentralBytes, name_bytes);
  e.member.bytes = directory.at<std::uint32_t>(at + 24), e.local = directory.at<std::uint32_t>(at + 42);
  std::uint64_t packed = directory.at<std::uint32_t>(at + 20);
  read_zip64(file, directory, at + kCentralBytes + name_bytes, extra_bytes, e, packed);
  e.next = at + kCentralBytes + name_bytes + extra_bytes + directory.at<std::uint16_t>(at + 32);
  if (directory.at<std::uint16_t>(at + 8) & 1) refuse(file, "a member is encrypted");
  if (directory.at<std::uint16_t>(at + 10) != 0 || packed != e.member.bytes)
    refuse(file, "a member is compressed, which torch.save never does");
  return e;
}

void locate_data(const InputFile& file, CentralEntry& e) {
  const Fields local(file, e.local, kLocalBytes);
  if (local.at<std::uint32_t>(0) != kLocal) refuse(file, "a member does not begin where the directory says");
  e.member.begin = e.local + kLocalBytes + local.at<std::uint16_t>(26) + local.at<std::uint16_t>(28);
  if (e.member.begin > file.bytes() || e.member.bytes > file.bytes() - e.member.begin)
    refuse(file, "a member ends behind the end of the file (cut off?)");
}

}  // namespace

bool ZipFile::is_zip(const InputFile& file) {
  std::uint32_t first = 0;
  return file.bytes() >= 4 && file.read(0, std::as_writable_bytes(std::span(&first, 1))) && (first == kLocal || first == kEnd);
}

ZipFile::ZipFile(std::shared_ptr<const InputFile> file) : file_(std::move(file)) {
  const Directory d = find_directory(*file_);
  if (d.members > kMostMembers || d.bytes > kLongestDirectory)
    refuse(*file_, fmt::format("a directory of {} members and {} bytes, at most {} and {} are allowed", d.members, d.bytes, kMostMembers,
                               kLongestDirectory));
  const Fields directory(*file_, d.begin, d.bytes);
  std::uint64_t at = 0;
  for (std::uint64_t i = 0; i < d.members; ++i) {
    CentralEntry e = read_entry(*file_, directory, at);
    locate_data(*file_, e);
    members_.push_back(std::move(e.member)), at = e.next;
  }
  std::sort(members_.begin(), members_.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < members_.size(); ++i) {
    if (members_[i].begin < members_[i - 1].begin + members_[i - 1].bytes) refuse(*file_, "two members overlap");
  }
  std::sort(members_.begin(), members_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(members_.begin(), members_.end(), [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != members_.end()) refuse(*file_, fmt::format("two members are called '{}'", twice->name.substr(0, 80)));
}

const ZipMember* ZipFile::find(std::string_view name) const {
  const auto at =
      std::lower_bound(members_.begin(), members_.end(), name, [](const ZipMember& m, std::string_view n) { return m.name < n; });
  return at != members_.end() && at->name == name ? &*at : nullptr;
}

std::string ZipFile::read(const ZipMember& member, std::uint64_t limit) const {
  if (member.bytes > limit) refuse(*file_, fmt::format("'{}' has {} bytes, at most {} are allowed", member.name, member.bytes, limit));
  std::string bytes(static_cast<size_t>(member.bytes), '\0');
  if (!file_->read(member.begin, std::as_writable_bytes(std::span(bytes)))) refuse(*file_, "it became shorter while it was read");
  return bytes;
}

}  // namespace lc
