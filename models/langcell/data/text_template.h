// What a text is made of: fields of a cell in an order, each `title: name. definition;` with words from ontologies.
#pragma once
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/langcell/data/corpus.h"
#include "models/langcell/data/ontology.h"
#include "models/langcell/data/texts.h"

namespace lc {

struct TemplateField {
  std::string column, title;  // cell_type, "cell type"
};

struct TextTemplate {
  static constexpr std::size_t kMostFields = 32;
  std::vector<TemplateField> fields;
  static TextTemplate standard();  // LangCell's order: cell_type, development_stage, tissue, disease, sex, assay, …
  // One field a line: the column, or column, tab, title. DataError: no field, one twice, a name that a corpus cannot keep.
  static TextTemplate read(const std::filesystem::path& path);
};

bool says_nothing(std::string_view value);  // unknown, na, n/a, nan or empty, in any case

// The words of fields, from the ontologies that are given; what none of them knows keeps its name alone and is listed.
class FieldWords {
 public:
  FieldWords() = default;
  explicit FieldWords(std::vector<Ontology> ontologies) : ontologies_(std::move(ontologies)) {}

  // `value` and `ids` of one cell, each may hold several parts with `||` between them. "": the field says nothing.
  std::string part(const TemplateField& field, const std::string& value, const std::string& ids);
  std::string id_of(const std::string& value, const std::string& ids) const;      // of the first part; "": not known
  std::vector<TypeAncestor> ancestors_of(const Texts& texts) const;               // of every Cell Ontology term that a label has
  const std::map<std::string, std::string>& unknown() const { return unknown_; }  // by "column: name", the id or ""
  bool given() const { return !ontologies_.empty(); }

 private:
  const Term* term_of(const std::string& name, const std::string& id) const;
  std::vector<Ontology> ontologies_;
  std::map<std::string, std::string> unknown_;
};

std::string text_of_parts(std::span<const std::string> parts);  // end to end, without those that are empty

}  // namespace lc
