// An ontology in OBO 1.2/1.4 (Cell Ontology, MONDO, UBERON …): terms by id, name and exact synonym, and what is a kind of what.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lc {

struct Term {
  std::string id, name, definition;      // definition: empty where the file gives none
  std::vector<std::string> synonyms;     // of scope EXACT
  std::vector<std::string> parents;      // is_a
  std::vector<std::string> replaced_by;  // of an obsolete term
  bool obsolete = false;
};

class Ontology {
 public:
  static Ontology read(const std::filesystem::path& path);  // DataError with the line: no OBO file, an id twice, no terms
  static Ontology parse(std::string_view text, std::string_view where);

  const std::vector<Term>& terms() const { return terms_; }
  const Term* find(std::string_view id) const;
  // By id, by name, by exact synonym, in this order; letters as they are, then, where that finds exactly one term, in any case. Of an
  // obsolete term its one replacement. Null: nothing, or several.
  const Term* look_up(std::string_view label) const;
  // The term itself and everything it is a kind of.
  std::vector<const Term*> ancestors(const Term& term) const;

 private:
  using Index = std::unordered_map<std::string, std::vector<size_t>>;
  const Term* one_of(const Index& index, const std::string& key) const;
  const Term* current(const Term* term) const;

  std::vector<Term> terms_;
  std::unordered_map<std::string, size_t> by_id_;
  Index by_name_, by_synonym_, by_name_folded_, by_synonym_folded_;
};

}  // namespace lc
