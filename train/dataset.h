// The cells and texts of one or more corpora under one numbering: cell c, text t (each distinct string once), group g (each label once).
#pragma once
#include <compare>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/langcell/data/batches.h"
#include "models/langcell/data/corpus.h"
#include "models/langcell/data/word_piece.h"

namespace lc {

// What a sample reads: one of the texts, without the fields whose bits are set.
struct TextChoice {
  std::int32_t text = -1;  // −1: none
  std::uint32_t dropped = 0;
  auto operator<=>(const TextChoice&) const = default;
};

class Dataset {
 public:
  // A folder stands for the .h5 files in it, by name. DataError when the corpora do not share one gene vocabulary.
  explicit Dataset(const std::vector<std::filesystem::path>& corpora);

  std::int64_t cells() const { return first_cell_.back(); }
  std::int64_t length(std::int64_t cell, int max_tokens) const;  // with <cls>
  std::vector<std::int32_t> sequence(std::int64_t cell, int max_tokens) const;
  Sequences sequences(std::span<const std::int64_t> cells, int max_tokens, Pass pass) const;
  void read_soon(std::span<const std::int64_t> cells) const;  // from the disk, in the background
  std::int32_t group(std::int64_t cell) const;                // −1: no text
  std::int32_t type(std::int64_t cell) const;  // equal numbers: one type, by Cell Ontology id where known, else by text; −1: no text
  // One of its group's strings, drawn per sample; of a text from a template every field but the cell type is left out by that chance.
  TextChoice text(std::int64_t cell, PhiloxKey chance, double field_dropout = 0) const;
  // Whether two groups may mean one cell: types equal, or one a kind of the other, and no other field that both know differs.
  bool related(std::int32_t group, std::int32_t other) const;
  bool knows_types() const { return knows_types_; }
  // f(cell, entry of obs/KEY) for every cell in order; DataError naming the corpus that lacks it.
  void for_column(const std::string& key, const std::function<void(std::int64_t, const std::string&)>& f) const;

  const std::vector<std::string>& texts() const { return texts_; }
  const std::vector<std::string>& groups() const { return groups_; }
  const std::vector<std::int32_t>& texts_of_group(std::int32_t group) const { return texts_of_group_[group]; }
  const GeneVocabulary& vocabulary() const { return corpora_.front().vocabulary(); }
  const std::vector<Corpus>& corpora() const { return corpora_; }

  std::vector<std::string> tokenize_texts(const WordPiece& word_piece, int max_tokens);  // returns the groups with a text that was cut
  const std::vector<std::int32_t>& text_tokens(std::int32_t text) const { return text_tokens_[text]; }
  std::vector<std::int32_t> text_tokens(const TextChoice& choice) const;

 private:
  void join(const Corpus& corpus);
  std::pair<const Corpus*, std::uint64_t> at(std::int64_t cell) const;
  std::vector<Corpus> corpora_;
  std::map<std::string, std::int32_t> text_number_, group_number_;
  std::vector<std::int64_t> first_cell_ = {0};
  std::vector<std::string> texts_, groups_;
  std::vector<std::vector<std::int32_t>> texts_of_group_, group_of_label_;  // group_of_label_[corpus][its own group]
  struct Field {
    std::string name, part;            // "tissue", "tissue: blood."
    std::vector<std::int32_t> tokens;  // of the part alone, without [CLS] and [SEP]
  };
  struct GroupFacts {
    std::int32_t type = -1;     // Cell Ontology number
    std::vector<Field> fields;  // of a template
  };
  void learn(const LabelTexts& label, const Texts& texts);
  std::uint32_t draw_dropped(const GroupFacts& facts, std::int64_t cell, PhiloxKey chance, double rate) const;
  std::vector<GroupFacts> facts_;  // of each group
  std::set<std::pair<std::int32_t, std::int32_t>> ancestors_;
  bool knows_types_ = false;
  std::vector<std::int32_t> group_of_text_;
  int max_text_tokens_ = 0;
  std::vector<std::vector<std::int32_t>> text_tokens_;
};

}  // namespace lc
