#include "models/langcell/pretrained/tensor_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "engine/errors.h"
#include "engine/safetensors.h"
#include "models/langcell/json_file.h"
#include "models/langcell/pretrained/torch_file.h"
#include "models/langcell/pretrained/zip_file.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostShards = 1000;

// The form that torch.save had before 1.6: pickles one after another, the first of them this number.
bool is_legacy_torch(const InputFile& file) {
  constexpr std::array<unsigned char, 14> kMagic{0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
  std::array<unsigned char, 14> first{};
  return file.bytes() >= first.size() && file.read(0, std::as_writable_bytes(std::span(first))) && first == kMagic;
}

}  // namespace

void TensorFiles::add(const fs::path& path) {
  auto file = std::make_shared<const InputFile>(path);
  std::vector<StoredTensor> found;
  if (ZipFile::is_zip(*file)) {
    found = torch_tensors(file);
  } else if (is_legacy_torch(*file)) {
    throw ModelError(fmt::format("{}: has the form that torch.save wrote before PyTorch 1.6; load and save it once with a newer PyTorch",
                                 path.string()));
  } else {
    const SafetensorsReader reader(path);
    found = reader.tensors();
    for (StoredTensor& t : found) t.begin += reader.data_begin();
  }
  files_.insert(files_.end(), found.size(), file);
  std::move(found.begin(), found.end(), std::back_inserter(tensors_));
}

void TensorFiles::require_unique() const {
  std::set<std::string_view> names;
  for (const StoredTensor& t : tensors_) {
    if (!names.insert(t.name).second)
      throw ModelError(fmt::format("{}:{}: the tensor is in two shards; take a complete copy of the folder", where_, t.name));
  }
}

TensorFiles TensorFiles::of_file(const fs::path& file) {
  TensorFiles t;
  t.where_ = file.string();
  t.add(file);
  return t;
}

TensorFiles TensorFiles::of_folder(const fs::path& folder) {
  for (const char* name : {"model.safetensors", "pytorch_model.bin"}) {
    if (is_file(folder / name)) return of_file(folder / name);
    const fs::path index = folder / (std::string(name) + ".index.json");
    if (!is_file(index)) continue;
    const JsonFile places = JsonFile(index).object("weight_map");
    std::set<std::string> shards;
    for (const std::string& tensor : places.keys()) {
      const std::string shard = places.get<std::string>(tensor);
      if (shard.empty() || shard.find('/') != std::string::npos) places.refuse(tensor, "the name of a file in the same folder");
      shards.insert(shard);
      if (shards.size() > kMostShards) places.refuse(tensor, fmt::format("at most {} shards", kMostShards));
    }
    TensorFiles t;
    t.where_ = index.string();
    for (const std::string& shard : shards) t.add(folder / shard);
    t.require_unique();
    std::set<std::string_view> there;
    for (const StoredTensor& s : t.tensors_) there.insert(s.name);
    for (const std::string& tensor : places.keys()) {
      if (!there.contains(tensor)) places.refuse(tensor, "a shard that holds this tensor");
    }
    return t;
  }
  throw ModelError(fmt::format("{}: no weights in it (model.safetensors, pytorch_model.bin, or the .index.json of either); check the path",
                               folder.string()));
}

void TensorFiles::read(size_t i, std::int64_t first, std::span<float> out) const {
  const StoredTensor& t = tensors_[i];
  const std::uint64_t offset = t.begin + static_cast<std::uint64_t>(first) * size_of(t.type);
  if (!read_floats(*files_[i], offset, t.type, out))
    throw ModelError(fmt::format("{}:{}: the file became shorter while it was read; fetch it again", where_, t.name));
  const auto bad = std::find_if(out.begin(), out.end(), [](float x) { return !std::isfinite(x); });
  if (bad == out.end()) return;
  throw ModelError(fmt::format("{}:{}: element {} is {}; such weights give no result: use another checkpoint", where_, t.name,
                               first + (bad - out.begin()), *bad));
}

}  // namespace lc
