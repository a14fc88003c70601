#include "tools/commands/template_texts.h"

#include <fmt/format.h>

#include <set>

#include "engine/errors.h"

namespace lc {
namespace {

// The words of one field by row, as codes; codes are equal where words and id are.
struct FieldCodes {
  std::vector<std::int32_t> codes;
  std::vector<std::pair<std::string, std::string>> parts;  // the words, the id of the first term
};

FieldCodes codes_of(const CellTable& obs, const TemplateField& field, FieldWords& words) {
  FieldCodes out;
  const std::string id_column = field.column + "_ontology_term_id";
  Categorical values = obs.categorical(field.column);
  const Categorical ids = obs.has(id_column) ? obs.categorical(id_column) : Categorical{};
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> known;
  for (size_t row = 0; row < values.codes.size(); ++row) {
    const std::int32_t id = ids.codes.empty() ? -1 : ids.codes[row];
    const auto [entry, fresh] = known.emplace(std::pair(values.codes[row], id), static_cast<std::int32_t>(out.parts.size()));
    if (fresh) {
      const std::string value = values.label(row), number = id < 0 ? "" : ids.categories[static_cast<size_t>(id)];
      out.parts.emplace_back(words.part(field, value, number), words.id_of(value, number));
    }
    values.codes[row] = entry->second;
  }
  out.codes = std::move(values.codes);
  return out;
}

}  // namespace

std::int32_t TemplateTexts::group_of(const std::vector<std::string>& parts, const std::string& id) {
  const std::string text = text_of_parts(parts);
  if (text.empty()) return -1;
  const auto [entry, fresh] = group_of_text_.emplace(text, static_cast<std::int32_t>(texts_.labels.size()));
  if (fresh) texts_.labels.push_back({text, {text}, id, parts});
  return entry->second;
}

std::vector<std::int32_t> TemplateTexts::groups_of(const CellTable& obs, const std::string& where) {
  std::vector<std::int32_t> running(obs.rows(), 0);
  struct Combination {
    std::vector<std::string> parts;
    std::string id;
  };
  std::vector<Combination> combinations(1);
  bool any = false;
  for (const TemplateField& field : template_.fields) {
    if (!obs.has(field.column)) {
      for (Combination& c : combinations) c.parts.emplace_back();
      continue;
    }
    any = true;
    const FieldCodes here = codes_of(obs, field, words_);
    std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> known;
    std::vector<Combination> next;
    for (size_t row = 0; row < running.size(); ++row) {
      const auto [entry, fresh] = known.emplace(std::pair(running[row], here.codes[row]), static_cast<std::int32_t>(next.size()));
      if (fresh) {
        next.push_back(combinations[static_cast<size_t>(running[row])]);
        const auto& [words, id] = here.parts[static_cast<size_t>(here.codes[row])];
        next.back().parts.push_back(words);
        if (field.column == "cell_type") next.back().id = id;
      }
      running[row] = entry->second;
    }
    combinations = std::move(next);
  }
  if (!any)
    throw DataError(fmt::format("{}:/obs: none of the template's columns is there; there are: {}", where, fmt::join(obs.columns(), ", ")));
  std::vector<std::int32_t> group;
  for (const Combination& c : combinations) group.push_back(group_of(c.parts, c.id));
  for (std::int32_t& code : running) code = group[static_cast<size_t>(code)];
  return running;
}

void require_cellxgene(const std::filesystem::path& path, const CellTable& obs) {
  constexpr std::string_view kHuman = "NCBITaxon:9606";
  std::vector<std::string> missing;
  for (const char* column : {"cell_type_ontology_term_id", "cell_type", "tissue", "disease", "is_primary_data"})
    if (!obs.has(column)) missing.push_back(column);
  if (!missing.empty())
    throw DataError(fmt::format("{}:/obs: not as CELLxGENE's schema wants it: no {}; without --cellxgene it is read as any other file",
                                path.string(), fmt::join(missing, ", ")));
  std::set<std::string> organisms;
  const Hdf5 file = Hdf5::open(path);
  if (obs.has("organism_ontology_term_id")) {
    const Categorical found = obs.categorical("organism_ontology_term_id");
    for (const std::int32_t code : found.codes) organisms.insert(code < 0 ? "nothing" : found.categories[static_cast<size_t>(code)]);
  } else if (file.has("uns/organism_ontology_term_id")) {
    for (const std::string& organism : file.at("uns/organism_ontology_term_id").read_strings()) organisms.insert(organism);
  }
  if (organisms != std::set<std::string>{std::string(kHuman)})
    throw DataError(fmt::format("{}: organism_ontology_term_id (obs or uns) is {}, wanted {} (human) alone", path.string(),
                                organisms.empty() ? "absent" : fmt::format("{}", fmt::join(organisms, ", ")), kHuman));
}

std::vector<char> primary_cells(const CellTable& obs) {
  const Categorical primary = obs.categorical("is_primary_data");
  std::vector<char> out;
  out.reserve(primary.codes.size());
  for (size_t row = 0; row < primary.codes.size(); ++row) {
    const std::string value = primary.label(row);
    out.push_back(value == "True" || value == "true" || value == "1");
  }
  return out;
}

}  // namespace lc
