// The tensors of one part of a foreign model, whatever their file: safetensors or torch.save, whole or in shards that an index names.
#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/input_file.h"
#include "engine/stored_tensor.h"

namespace lc {

class TensorFiles {
 public:
  static TensorFiles of_file(const std::filesystem::path& file);
  // The weights of a Hugging Face folder: model.safetensors, pytorch_model.bin, or the index of either. ModelError when there are none.
  static TensorFiles of_folder(const std::filesystem::path& folder);

  const std::string& where() const { return where_; }  // for messages
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // Numbers of tensor i of a weight's type, from element `first` on; finite or ModelError naming the tensor.
  void read(size_t i, std::int64_t first, std::span<float> out) const;
  void read(size_t i, std::span<float> out) const { read(i, 0, out); }

 private:
  void add(const std::filesystem::path& file);
  void require_unique() const;
  std::string where_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::shared_ptr<const InputFile>> files_;  // of each tensor
};

}  // namespace lc
