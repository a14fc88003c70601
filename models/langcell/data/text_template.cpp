#include "models/langcell/data/text_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "models/langcell/data/plain_text.h"

namespace lc {
namespace {

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t bar; (bar = text.find("||")) != std::string_view::npos; text.remove_prefix(bar + 2))
    parts.emplace_back(trimmed(text.substr(0, bar)));
  parts.emplace_back(trimmed(text));
  return parts;
}

std::string title_of(std::string column) {
  std::replace(column.begin(), column.end(), '_', ' ');
  return column;
}

}  // namespace

bool says_nothing(std::string_view value) {
  const std::string word = folded(trimmed(value));
  return word.empty() || word == "unknown" || word == "na" || word == "n/a" || word == "nan";
}

TextTemplate TextTemplate::standard() {
  TextTemplate t;
  for (const char* column :
       {"cell_type", "development_stage", "tissue", "disease", "sex", "assay", "suspension_type", "self_reported_ethnicity"})
    t.fields.push_back({column, title_of(column)});
  return t;
}

TextTemplate TextTemplate::read(const std::filesystem::path& path) {
  TextTemplate t;
  std::set<std::string> columns;
  const std::string text = read_file(path);
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = trimmed(std::string_view(text).substr(begin, end - begin));
    begin = end + 1, ++number;
    if (line.empty() || line[0] == '#') continue;
    const size_t tab = line.find('\t');
    const std::string column(trimmed(line.substr(0, tab)));
    if (column.find_first_of("/:") != std::string::npos || column == "label" || column == "ontology_id")
      throw DataError(fmt::format("{}:{}: '{}' cannot be a field; wanted a column of obs, and behind a tab what it is called in the text",
                                  path.string(), number, column));
    if (!columns.insert(column).second) throw DataError(fmt::format("{}:{}: the field '{}' occurs twice", path.string(), number, column));
    t.fields.push_back({column, tab == std::string::npos ? title_of(column) : std::string(trimmed(line.substr(tab + 1)))});
  }
  if (t.fields.size() > TextTemplate::kMostFields)
    throw DataError(
        fmt::format("{}: wanted at most {} fields, got {}; leave some out", path.string(), TextTemplate::kMostFields, t.fields.size()));
  if (t.fields.empty()) throw DataError(fmt::format("{}: no fields; wanted a column of obs on each line", path.string()));
  return t;
}

const Term* FieldWords::term_of(const std::string& name, const std::string& id) const {
  if (!says_nothing(id)) {
    for (const Ontology& ontology : ontologies_)
      if (const Term* term = ontology.look_up(id)) return term;
    return nullptr;
  }
  for (const Ontology& ontology : ontologies_)
    if (const Term* term = ontology.look_up(name)) return term;
  return nullptr;
}

std::string FieldWords::part(const TemplateField& field, const std::string& value, const std::string& ids) {
  const std::vector<std::string> names = split(value), numbers = split(ids);
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string id = numbers.size() == names.size() ? numbers[i] : "";
    if (says_nothing(names[i])) continue;
    const Term* const term = term_of(names[i], id);
    if (!term && given()) unknown_.emplace(field.column + ": " + names[i], id);
    const std::string definition(term ? trimmed(term->definition) : "");
    out += fmt::format("{}{}: {}.{};", out.empty() ? "" : " ", field.title, term ? term->name : names[i],
                       definition.empty() ? "" : " " + definition);
  }
  return out;
}

std::string FieldWords::id_of(const std::string& value, const std::string& ids) const {
  const std::string name = split(value).front(), id = split(ids).front();
  if (says_nothing(name)) return "";
  const Term* const term = term_of(name, id);
  return term ? term->id : says_nothing(id) ? "" : id;
}

std::vector<TypeAncestor> FieldWords::ancestors_of(const Texts& texts) const {
  std::set<std::pair<std::int32_t, std::int32_t>> pairs;
  for (const LabelTexts& label : texts.labels) {
    const std::int32_t type = cell_ontology_number(label.ontology_id);
    if (type < 0) continue;
    for (const Ontology& ontology : ontologies_) {
      const Term* const term = ontology.find(label.ontology_id);
      if (!term) continue;
      for (const Term* ancestor : ontology.ancestors(*term))
        if (const std::int32_t number = cell_ontology_number(ancestor->id); number >= 0 && number != type) pairs.insert({type, number});
    }
  }
  std::vector<TypeAncestor> out;
  for (const auto& [type, ancestor] : pairs) out.push_back({type, ancestor});
  return out;
}

std::string text_of_parts(std::span<const std::string> parts) {
  std::string text;
  for (const std::string& part : parts)
    if (!part.empty()) text += (text.empty() ? "" : " ") + part;
  return text;
}

}  // namespace lc
