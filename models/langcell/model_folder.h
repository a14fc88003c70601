// The folder on disk: names, layout, manifest. Checkpoints, pre-training and annotate share it.
// A parameter's file follows from its name: cell_bert.X lies in cell_bert/model.safetensors as X, cell_proj.X in cell_proj.safetensors as
// X.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/safetensors.h"
#include "models/langcell/data/gene_vocabulary.h"
#include "models/langcell/data/word_piece.h"
#include "models/langcell/langcell.h"
#include "models/langcell/manifest.h"

namespace lc {

struct ModelFacts {  // what a folder holds beside sizes and weights
  GeneVocabulary genes;
  WordPiece word_piece;              // of the text tower; empty without one
  double temperature = 0.05;         // τ of the contrastive losses
  std::vector<std::string> history;  // one line per thing the weights went through, for config.json and the card
};

// Into an existing, still partial folder, without manifest; `parts` may leave out what was not trained. Weights are the float masters.
using WeightsOf = std::function<HostNumbers(const NamedParameter&)>;  // empty: as they are on the model's device
void write_model(const std::filesystem::path& folder, const LangCell& model, const ModelFacts& facts, const LangCell::Parts& parts = {},
                 const WeightsOf& weights = {});
void save_model(const std::filesystem::path& path, const LangCell& model, const ModelFacts& facts, Existing existing = Existing::refuse);

struct LoadedModel {
  std::unique_ptr<LangCell> model;
  ModelFacts facts;
  std::string hash;  // content_hash
  const LangCellConfig& config() const { return model->config(); }
};
struct LoadOptions {
  DType storage = DType::f32;
  Queue queue{};
  Verify verify = Verify::sizes;
};
// ModelError for anything that is missing, unexpected, damaged, not finite, or does not fit. A folder without manifest is taken as it is.
LoadedModel load_model(const std::filesystem::path& folder, const LoadOptions& options = {});

// Weights into a model that is there already. `keep`: a part the folder lacks keeps its weights (a checkpoint of stage 1 has no text
// tower).
enum class Missing : std::uint8_t { refuse, keep };
void read_weights(const std::filesystem::path& folder, LangCell& model, Missing missing = Missing::refuse);

// ---- For the moments of a checkpoint, which lie in one file under the full names.

LangCell::Parts parts_in(const std::filesystem::path& folder);  // which the folder has
std::vector<std::int64_t> stored_shape(const Shape& shape);
bool in_parts(const NamedParameter& parameter, const LangCell::Parts& parts);
// Every wanted tensor is there in its shape and a float type, and nothing else; one ModelError lists what is wrong.
struct WantedTensor {
  std::string name;
  Shape shape;
};
void require_tensors(const std::string& where, std::span<const StoredTensor> found, const std::vector<WantedTensor>& wanted);

}  // namespace lc
