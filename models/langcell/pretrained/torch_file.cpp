#include "models/langcell/pretrained/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "engine/errors.h"
#include "models/langcell/pretrained/pickle.h"
#include "models/langcell/pretrained/zip_file.h"

namespace lc {
namespace {

using Value = Pickle::Value;
using Kind = Pickle::Kind;

constexpr std::uint64_t kLongestPickle = std::uint64_t{16} << 20, kLongestMark = 64;
constexpr size_t kHighestRank = 8, kLongestName = 512;
constexpr std::string_view kRebuildTensor = "torch._utils _rebuild_tensor_v2", kRebuildParameter = "torch._utils _rebuild_parameter";

struct Storage {
  std::string_view global;
  StoredType type;
};
constexpr std::array<Storage, 10> kStorages{{{"torch FloatStorage", StoredType::f32},
                                             {"torch DoubleStorage", StoredType::f64},
                                             {"torch HalfStorage", StoredType::f16},
                                             {"torch BFloat16Storage", StoredType::bf16},
                                             {"torch LongStorage", StoredType::i64},
                                             {"torch IntStorage", StoredType::i32},
                                             {"torch ShortStorage", StoredType::i16},
                                             {"torch CharStorage", StoredType::i8},
                                             {"torch ByteStorage", StoredType::u8},
                                             {"torch BoolStorage", StoredType::boolean}}};

std::vector<std::string_view> globals() {
  std::vector<std::string_view> all = {"collections OrderedDict", kRebuildTensor, kRebuildParameter};
  for (const Storage& s : kStorages) all.push_back(s.global);
  return all;
}

class StateDict {
 public:
  explicit StateDict(const std::shared_ptr<const InputFile>& file) : zip_(file), where_(file->path().string()) {
    for (const ZipMember& m : zip_.members()) {
      if (m.name == "data.pkl" || m.name.ends_with("/data.pkl")) top_ = m.name.substr(0, m.name.size() - 8), ++pickles_;
      if (m.name.ends_with("/constants.pkl")) refuse("", "it is TorchScript, a program; save the state_dict of the model instead");
    }
    if (pickles_ != 1) refuse("", fmt::format("wanted one data.pkl in the archive, found {}; was it written by torch.save?", pickles_));
    if (const ZipMember* order = zip_.find(top_ + "byteorder"); order && zip_.read(*order, kLongestMark) != "little") {
      refuse("", "its storages are big-endian; save it on a little-endian machine");
    }
  }

  std::vector<StoredTensor> tensors() {
    const ZipMember& member = *zip_.find(top_ + "data.pkl");
    const std::string bytes = zip_.read(member, kLongestPickle);
    const std::vector<std::string_view> allowed = globals();
    const Pickle pickle(bytes, allowed, where_);
    const Value& top = pickle.top();
    if (!top.is(Kind::dictionary))
      refuse("", fmt::format("it holds a {}, wanted a dictionary of tensors; save the state_dict of the model", Pickle::name_of(top.kind)));
    std::map<std::string, StoredTensor> named;
    for (size_t i = 0; i < top.items.size(); i += 2) {
      StoredTensor t = tensor_of(name_of(*top.items[i]), *top.items[i + 1]);
      const std::string name = t.name;
      if (!named.emplace(name, std::move(t)).second) refuse(name, "the name occurs twice; save it again");
    }
    std::vector<StoredTensor> all;
    for (auto& [name, t] : named) all.push_back(std::move(t));
    return all;
  }

 private:
  [[noreturn]] void refuse(const std::string& tensor, std::string_view what) const {
    throw ModelError(fmt::format("{}{}{}: {}", where_, tensor.empty() ? "" : ":", tensor, what));
  }
  std::string name_of(const Value& key) const {
    if (!key.is(Kind::text) || key.text.empty() || key.text.size() > kLongestName ||
        std::any_of(key.text.begin(), key.text.end(), [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; })) {
      refuse("", "a name in its dictionary is no plain text; save the state_dict of the model");
    }
    return key.text;
  }
  std::vector<std::int64_t> sizes_of(const std::string& name, const Value& v) const {
    if (!v.is(Kind::tuple) || v.items.size() > kHighestRank)
      refuse(name, fmt::format("wanted a tuple of at most {} sizes; the file is damaged: fetch it again", kHighestRank));
    std::vector<std::int64_t> sizes;
    for (const Value* item : v.items) sizes.push_back(whole(name, *item));
    return sizes;
  }
  std::int64_t whole(const std::string& name, const Value& v) const {
    if (!v.is(Kind::integer) || v.integer < 0)
      refuse(name, "a size or an offset is no whole number from 0; the file is damaged: fetch it again");
    return v.integer;
  }

  StoredTensor tensor_of(const std::string& name, const Value& value) const {
    const Value* v = &value;
    if (v->calls(kRebuildParameter) && v->items.size() > 1) v = v->items[1];
    if (!v->calls(kRebuildTensor) || v->items.size() < 5)
      refuse(name, fmt::format("wanted a tensor, found a {}; save the state_dict of the model alone", Pickle::name_of(v->kind)));
    StoredTensor t;
    t.name = name, t.shape = sizes_of(name, *v->items[3]);
    const std::vector<std::int64_t> strides = sizes_of(name, *v->items[4]);
    const ZipMember& storage = storage_of(name, *v->items[1], t.type);
    const auto bytes = bytes_of(t.type, t.shape);
    const auto offset = static_cast<std::uint64_t>(whole(name, *v->items[2]));
    if (!bytes || offset > storage.bytes / size_of(t.type) || *bytes > storage.bytes - offset * size_of(t.type)) {
      refuse(name, fmt::format("its storage of {} bytes is too short for its shape; the file is damaged: fetch it again", storage.bytes));
    }
    t.begin = storage.begin + offset * size_of(t.type), t.bytes = *bytes;
    require_contiguous(t, strides);
    return t;
  }
  void require_contiguous(const StoredTensor& t, const std::vector<std::int64_t>& strides) const {
    bool same = strides.size() == t.shape.size();
    std::int64_t wanted = 1;
    for (size_t i = t.shape.size(); same && i-- > 0;) {
      same = t.shape[i] <= 1 || strides[i] == wanted || t.bytes == 0;
      wanted *= std::max<std::int64_t>(t.shape[i], 1);
    }
    if (!same) refuse(t.name, "its elements do not lie in a row (a transposed view?); save tensor.contiguous()");
  }
  // ('storage', type, key, location, number of elements)
  const ZipMember& storage_of(const std::string& name, const Value& v, StoredType& type) const {
    const bool known = v.is(Kind::persistent) && v.items[0]->is(Kind::tuple) && v.items[0]->items.size() == 5;
    if (!known) refuse(name, "its storage is not named as torch.save does; the file is damaged: fetch it again");
    const std::vector<const Value*>& id = v.items[0]->items;
    const auto storage = std::find_if(kStorages.begin(), kStorages.end(),
                                      [&](const Storage& s) { return id[1]->is(Kind::global) && id[1]->text == s.global; });
    if (!id[0]->is(Kind::text) || id[0]->text != "storage" || !id[2]->is(Kind::text) || storage == kStorages.end())
      refuse(name, "its storage is of an unknown kind; save it again as float32");
    type = storage->type;
    const ZipMember* member = zip_.find(top_ + "data/" + id[2]->text);
    if (!member)
      refuse(name, fmt::format("its storage 'data/{}' is missing from the archive; the file is damaged: fetch it again",
                               id[2]->text.substr(0, 80)));
    return *member;
  }

  ZipFile zip_;
  std::string where_, top_;
  int pickles_ = 0;
};

}  // namespace

std::vector<StoredTensor> torch_tensors(const std::shared_ptr<const InputFile>& file) { return StateDict(file).tensors(); }

}  // namespace lc
