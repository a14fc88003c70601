// Models of other programs as ours: the published LangCell bundle, and a Geneformer as the cell tower of a model to be trained.
#pragma once
#include <filesystem>
#include <vector>

#include "models/langcell/model_folder.h"
#include "models/langcell/pretrained/tower_weights.h"

namespace lc {

struct ImportedModel {
  LoadedModel loaded;
  std::vector<TensorAccount> accounts;
};

struct BundleSource {
  std::filesystem::path folder;
  GeneVocabulary genes;
  std::filesystem::path text_vocab;  // vocab.txt of the text tower
};
// DIR/cell_bert, DIR/text_bert (config.json and weights), DIR/{cell_proj,text_proj,ctm_head}.{bin,safetensors}, and mgm_head where there is
// one. ModelError for whatever is missing or does not fit.
ImportedModel import_bundle(const BundleSource& source);

// A Geneformer V1 folder: cell tower and masked-gene head; the row of <cls> is drawn as `seed` says.
ImportedModel import_geneformer(const std::filesystem::path& folder, const GeneVocabulary& genes, std::uint64_t seed);

}  // namespace lc
