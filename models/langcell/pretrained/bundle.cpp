#include "models/langcell/pretrained/bundle.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "engine/build.h"
#include "engine/errors.h"
#include "models/langcell/json_file.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

std::optional<fs::path> head_file(const fs::path& folder, const std::string& name) {
  for (const char* suffix : {".safetensors", ".bin"}) {
    if (is_file(folder / (name + suffix))) return folder / (name + suffix);
  }
  return std::nullopt;
}

TensorFiles head(const fs::path& folder, const std::string& name) {
  if (const auto file = head_file(folder, name)) return TensorFiles::of_file(*file);
  throw ModelError(
      fmt::format("{}: {}.bin (or .safetensors) is missing; the folder is no complete LangCell bundle", folder.string(), name));
}

// The preset whose sizes these are, else "imported".
std::string preset_of(const LangCellConfig& c) {
  for (const std::string& name : preset_names()) {
    const LangCellConfig p = preset(name, c.cell.vocabulary, c.text.vocabulary);
    const auto same = [](const TowerConfig& a, const TowerConfig& b) {
      return a.layers == b.layers && a.width == b.width && a.heads == b.heads && a.ffn == b.ffn && a.positions == b.positions;
    };
    if (same(p.cell, c.cell) && same(p.text, c.text) && p.projection == c.projection) return name;
  }
  return "imported";
}

void require_genes(const GeneVocabulary& genes, const TowerConfig& cell, const fs::path& folder) {
  if (genes.size() == cell.vocabulary) return;
  throw ModelError(fmt::format(
      "{}: the gene table has {} rows with <cls>, the gene vocabulary {} tokens; give the genes this model was trained with (--genes)",
      folder.string(), cell.vocabulary, genes.size()));
}

std::string origin(const char* what, const fs::path& folder) {
  return fmt::format("langcell {}: imported {} from {}", build::kVersion, what, fs::absolute(folder).filename().string());
}

}  // namespace

ImportedModel import_bundle(const BundleSource& source) {
  const fs::path& folder = source.folder;
  const TensorFiles cell = TensorFiles::of_folder(folder / "cell_bert"), text = TensorFiles::of_folder(folder / "text_bert");
  const TensorFiles cell_proj = head(folder, "cell_proj"), text_proj = head(folder, "text_proj"), ctm_head = head(folder, "ctm_head");
  const auto mgm_head = head_file(folder, "mgm_head");

  LangCellConfig config;
  config.cell = read_tower(folder / "cell_bert", cell, TowerSource::langcell);
  config.text = read_tower(folder / "text_bert", text, TowerSource::langcell);
  const auto weight = std::find_if(cell_proj.tensors().begin(), cell_proj.tensors().end(),
                                   [](const StoredTensor& t) { return t.name == "weight" && t.shape.size() == 2; });
  if (weight == cell_proj.tensors().end())
    throw ModelError(fmt::format("{}:weight: wanted shape (projection, {}), got no such tensor", cell_proj.where(), config.cell.width));
  config.projection = static_cast<int>(std::clamp<std::int64_t>(weight->shape[0], 1, 1 << 16));
  config.preset = preset_of(config);
  config.max_cell_tokens = config.cell.positions, config.max_text_tokens = config.text.positions;
  require_valid(config);

  ImportedModel model;
  ModelFacts& facts = model.loaded.facts;
  facts.genes = source.genes;
  require_genes(facts.genes, config.cell, folder / "cell_bert");
  facts.word_piece = as_model_error([&] { return WordPiece::read(source.text_vocab); });
  facts.word_piece.require_fits(config.text.vocabulary, source.text_vocab.string());
  facts.history.push_back(origin("a LangCell bundle", folder));

  LangCell::Parts parts;
  if (!mgm_head) parts.mgm_head = LangCell::Part::absent;
  model.loaded.model = std::make_unique<LangCell>(config, parts, DType::f32);
  LangCell& to = *model.loaded.model;
  model.accounts.push_back(fill_tower(cell, TowerSource::langcell, "cell_bert", to));
  model.accounts.push_back(fill_tower(text, TowerSource::langcell, "text_bert", to));
  model.accounts.push_back(fill_head(cell_proj, "cell_proj", to));
  model.accounts.push_back(fill_head(text_proj, "text_proj", to));
  model.accounts.push_back(fill_head(ctm_head, "ctm_head", to));
  if (mgm_head) model.accounts.push_back(fill_head(TensorFiles::of_file(*mgm_head), "mgm_head", to));
  to.parameters().refresh_storage();
  return model;
}

ImportedModel import_geneformer(const fs::path& folder, const GeneVocabulary& genes, std::uint64_t seed) {
  const TensorFiles files = TensorFiles::of_folder(folder);
  LangCellConfig config;
  config.cell = read_tower(folder, files, TowerSource::geneformer);
  config.preset = preset_of(config);
  config.max_cell_tokens = config.cell.positions;
  require_valid(config);
  require_genes(genes, config.cell, folder);
  ImportedModel model;
  model.loaded.facts.genes = genes;
  model.loaded.facts.history.push_back(origin("a Geneformer", folder));
  const bool head = std::any_of(files.tensors().begin(), files.tensors().end(),
                                [](const StoredTensor& t) { return t.name.find("predictions.transform.") != std::string::npos; });
  model.loaded.model = std::make_unique<LangCell>(
      config, LangCell::Parts{LangCell::Part::absent, head ? LangCell::Part::required : LangCell::Part::absent}, DType::f32);
  model.loaded.model->parameters().initialize(seed);
  model.accounts.push_back(fill_tower(files, TowerSource::geneformer, "cell_bert", *model.loaded.model));
  model.loaded.model->parameters().refresh_storage();
  return model;
}

}  // namespace lc
