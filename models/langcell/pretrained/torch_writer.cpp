#include "models/langcell/pretrained/torch_writer.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/zip_writer.h"

namespace lc {
namespace {

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
