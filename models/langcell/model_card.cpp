#include "models/langcell/model_card.h"

#include <fmt/format.h>

#include "engine/build.h"
#include "models/langcell/model_folder.h"

namespace lc {
namespace {

std::string tower_row(const char* name, const TowerConfig& t) {
  return fmt::format("| {} | {} | {} | {} × {} | {} | {} | {} |\n", name, t.layers, t.width, t.heads, t.width / t.heads, t.ffn, t.positions,
                     t.vocabulary);
}

}  // namespace

std::string model_card(const LangCell& model, const FolderConfig& config, const LangCell::Parts& parts) {
  std::int64_t count = 0;
  for (const NamedParameter& p : model.parameters().named()) {
    if (in_parts(p, parts)) count += p.shape.count();
  }
  const LangCellConfig& m = config.model;
  std::string card = fmt::format(
      "# A LangCell model\n\nPreset `{}`, {} parameters, written by langcell {}. It maps the gene ranks of a cell{} to a vector{}.\n\n"
      "| tower | layers | width | heads | FFN | positions | vocabulary |\n| --- | --- | --- | --- | --- | --- | --- |\n",
      m.preset, count, build::kVersion, m.text.layers ? " and a text" : "",
      m.projection ? fmt::format(" of {} numbers", m.projection) : "");
  card += tower_row("cell_bert", m.cell);
  if (m.text.layers) card += tower_row("text_bert", m.text);
  card += fmt::format("\nTrained with at most {} tokens a cell{}.\n\n## What the weights went through\n\n", m.max_cell_tokens,
                      m.text.layers ? fmt::format(" and {} a text, temperature {}", m.max_text_tokens, config.temperature) : "");
  if (config.history.empty()) card += "Not recorded.\n";
  for (const std::string& line : config.history) card += "- " + line + "\n";
  card +=
      "\n## What to keep in mind\n\n- Cells must be counts with Ensembl gene ids of `genes.tsv`; the medians in it belong to these "
      "weights.\n"
      "- Scores are comparable only within one list of texts.\n- A label is a suggestion of the model, not a diagnosis.\n";
  return card;
}

}  // namespace lc
