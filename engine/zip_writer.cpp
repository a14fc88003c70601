#include "engine/zip_writer.h"

#include <fmt/format.h>
#include <zlib.h>

#include <limits>

#include "engine/errors.h"

namespace lc {
namespace {

constexpr size_t kDataAlignment = 64;
constexpr std::uint64_t kLargestZip = std::numeric_limits<std::uint32_t>::max();

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

struct Member {
  std::uint32_t crc, bytes;
  const std::string& name;
};
void common(std::string& to, const Member& m, std::uint16_t extra) {
  constexpr std::uint16_t kVersion = 0, kUtf8 = 0x0800, kStored = 0, kMidnight = 0, kJanuary1980 = 0x0021;
  for (const std::uint16_t v : {kVersion, kUtf8, kStored, kMidnight, kJanuary1980}) put(to, v);
  put(to, m.crc), put(to, m.bytes), put(to, m.bytes), put(to, static_cast<std::uint16_t>(m.name.size())), put(to, extra);
}

}  // namespace

void ZipWriter::add(const std::string& name, std::string_view data) {
  const std::uint64_t begin = at_ + 30 + name.size() + 4;
  const auto padding = static_cast<std::uint16_t>((kDataAlignment - begin % kDataAlignment) % kDataAlignment);
  if (data.size() > kLargestZip || begin + padding + data.size() > kLargestZip)
    throw ResourceError(fmt::format("{}: would be larger than 4 GiB, which this form cannot hold; choose another", path_.string()));
  const Member member{static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size())),
                      static_cast<std::uint32_t>(data.size()), name};
  std::string local = "PK\x03\x04";
  common(local, member, static_cast<std::uint16_t>(4 + padding));
  local += name + "FB", put(local, padding), local.append(padding, 'Z');  // the field torch pads with
  std::string entry = "PK\x01\x02";
  put(entry, std::uint16_t{0});
  common(entry, member, 0);
  entry.append(10, '\0'), put(entry, static_cast<std::uint32_t>(at_)), entry += name;
  directory_ += entry, ++members_;
  write(local), write(data);
}

void ZipWriter::commit() {
  const std::uint64_t begin = at_;
  std::string end = "PK\x05\x06";
  end.append(4, '\0'), put(end, members_), put(end, members_), put(end, static_cast<std::uint32_t>(directory_.size())),
      put(end, static_cast<std::uint32_t>(begin)), end.append(2, '\0');
  write(directory_), write(end);
  file_.commit();
}

}  // namespace lc
