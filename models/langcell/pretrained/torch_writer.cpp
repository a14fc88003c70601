#include "models/langcell/pretrained/torch_writer.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <limits>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {
namespace {

constexpr size_t kAlignment = 64;  // of a storage within the file
constexpr std::uint64_t kLargest = std::numeric_limits<std::uint32_t>::max();

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

// The opcodes of a protocol-2 pickle that a state dict needs (CPython's pickletools); no memo: nothing is written twice.
class StateDictPickle {
 public:
  StateDictPickle() {
    text_ += "\x80\x02";
    ordered_dict(), text_ += '(';
  }
  void add(const TensorToPickle& t, size_t storage) {
    text(t.name);
    text_ += "ctorch._utils\n_rebuild_tensor_v2\n((";
    text("storage"), text_ += "ctorch\nFloatStorage\n";
    text(std::to_string(storage)), text("cpu"), integer(static_cast<std::int64_t>(t.data.size()));
    text_ += "tQ", integer(0);
    tuple(t.shape);
    std::vector<std::int64_t> strides(t.shape.size(), 1);
    for (size_t i = strides.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<std::int64_t>(t.shape[i], 1);
    tuple(strides);
    text_ += '\x89', ordered_dict(), text_ += "tR";
  }
  std::string finish() { return text_ += "u."; }

 private:
  void ordered_dict() { text_ += "ccollections\nOrderedDict\n)R"; }
  void text(const std::string& s) { text_ += 'X', put(text_, static_cast<std::uint32_t>(s.size())), text_ += s; }
  void integer(std::int64_t v) {
    if (v == static_cast<std::int32_t>(v))
      text_ += 'J', put(text_, static_cast<std::int32_t>(v));
    else
      text_ += "\x8a\x08", put(text_, v);
  }
  void tuple(const std::vector<std::int64_t>& sizes) {
    text_ += '(';
    for (const std::int64_t size : sizes) integer(size);
    text_ += 't';
  }
  std::string text_;
};

class ZipWriter {
 public:
  explicit ZipWriter(const std::filesystem::path& path) : file_(path), path_(path) {}
  void add(const std::string& name, std::string_view data) {
    const auto crc = static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()));
    const std::uint64_t begin = at_ + 30 + name.size() + 4;
    const auto padding = static_cast<std::uint16_t>((kAlignment - begin % kAlignment) % kAlignment);
    if (data.size() > kLargest || begin + padding + data.size() > kLargest)
      throw ResourceError(fmt::format("{}: would be larger than 4 GiB, which this form cannot hold; export smaller parts", path_.string()));
    std::string local = "PK\x03\x04";
    common(local, crc, static_cast<std::uint32_t>(data.size()), name, static_cast<std::uint16_t>(4 + padding));
    local += name + "FB", put(local, padding), local.append(padding, 'Z');  // the field torch pads with
    std::string entry = "PK\x01\x02";
    put(entry, std::uint16_t{0});
    common(entry, crc, static_cast<std::uint32_t>(data.size()), name, 0);
    entry.append(10, '\0'), put(entry, static_cast<std::uint32_t>(at_)), entry += name;
    directory_ += entry, ++members_;
    write(local), write(data);
  }
  void commit() {
    const std::uint64_t begin = at_;
    std::string end = "PK\x05\x06";
    end.append(4, '\0'), put(end, members_), put(end, members_), put(end, static_cast<std::uint32_t>(directory_.size())),
        put(end, static_cast<std::uint32_t>(begin)), end.append(2, '\0');
    write(directory_), write(end);
    file_.commit();
  }

 private:
  static void common(std::string& to, std::uint32_t crc, std::uint32_t bytes, const std::string& name, std::uint16_t extra) {
    constexpr std::uint16_t kVersion = 0, kUtf8 = 0x0800, kStored = 0, kMidnight = 0, kJanuary1980 = 0x0021;
    for (const std::uint16_t v : {kVersion, kUtf8, kStored, kMidnight, kJanuary1980}) put(to, v);
    put(to, crc), put(to, bytes), put(to, bytes), put(to, static_cast<std::uint16_t>(name.size())), put(to, extra);
  }
  void write(std::string_view bytes) { file_.write(bytes), at_ += bytes.size(); }
  AtomicFile file_;
  std::filesystem::path path_;
  std::string directory_;
  std::uint64_t at_ = 0;
  std::uint16_t members_ = 0;
};

}  // namespace

void write_torch(const std::filesystem::path& path, std::span<const TensorToPickle> tensors) {
  StateDictPickle pickle;
  for (size_t i = 0; i < tensors.size(); ++i) pickle.add(tensors[i], i);
  const std::string top = path.stem().string() + "/";
  ZipWriter zip(path);
  zip.add(top + "data.pkl", pickle.finish());
  zip.add(top + "byteorder", "little");
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto bytes = std::as_bytes(tensors[i].data);
    zip.add(fmt::format("{}data/{}", top, i), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  zip.add(top + "version", "3\n");
  zip.commit();
}

}  // namespace lc
