// Tensors of a file written by torch.save: a zip archive with a pickled state dict (data.pkl) and one member per storage.
#pragma once
#include <memory>
#include <vector>

#include "engine/input_file.h"
#include "engine/stored_tensor.h"

namespace lc {

// The tensors of the state dict, sorted by name; `begin` counts from the start of the file. Tensors may share a storage (tied weights).
// ModelError for anything else: the form before PyTorch 1.6, TorchScript, big-endian storages, strides that are not contiguous, values
// that are no tensors.
std::vector<StoredTensor> torch_tensors(const std::shared_ptr<const InputFile>& file);

}  // namespace lc
