// A state dict as torch.save writes it, so that torch.load (with weights_only too) and from_pretrained take it: zip, protocol 2, float32.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace lc {

struct TensorToPickle {
  std::string name;
  std::vector<std::int64_t> shape;
  std::span<const float> data;
};

// Atomic. `path`'s stem names the folder within the archive, as torch does. ResourceError from 4 GiB on: use safetensors there.
void write_torch(const std::filesystem::path& path, std::span<const TensorToPickle> tensors);

}  // namespace lc
