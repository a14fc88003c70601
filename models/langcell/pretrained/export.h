// A model of ours in the layout of the published bundle: two Hugging Face folders and one file per head, each a state dict of torch.save.
#pragma once
#include <filesystem>

#include "models/langcell/model_folder.h"

namespace lc {

// Atomic. cell_bert/{config.json,pytorch_model.bin}, text_bert/ likewise with vocab.txt, cell_proj.bin, text_proj.bin, ctm_head.bin; beside
// them what the published bundle lacks and `langcell import` takes: genes.tsv, and mgm_head.bin where the model has one.
void export_bundle(const std::filesystem::path& folder, const LoadedModel& model, Existing existing);

}  // namespace lc
