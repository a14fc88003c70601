// The cells and texts of one or more corpora under one numbering: cell c, text t (each distinct string once), group g (each label once).
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/numeric.h"
#include "models/langcell/data/corpus.h"
#include "models/langcell/data/word_piece.h"

namespace lc {

class Dataset {
 public:
  // DataError when the corpora do not share one gene vocabulary.
  explicit Dataset(const std::vector<std::filesystem::path>& corpora);

  std::int64_t cells() const { return first_cell_.back(); }
  std::int64_t length(std::int64_t cell, int max_tokens) const;  // with <cls>
  std::vector<std::int32_t> sequence(std::int64_t cell, int max_tokens) const;
  std::int32_t group(std::int64_t cell) const;                    // −1: no text
  std::int32_t text(std::int64_t cell, PhiloxKey chance) const;   // one of its group's strings, drawn per sample; −1: none
  std::vector<std::string> column(const std::string& key) const;  // of obs, for every cell; DataError naming the corpus that lacks it

  const std::vector<std::string>& texts() const { return texts_; }
  const std::vector<std::string>& groups() const { return groups_; }
  const std::vector<std::int32_t>& texts_of_group(std::int32_t group) const { return texts_of_group_[group]; }
  const GeneVocabulary& vocabulary() const { return corpora_.front().vocabulary(); }
  const std::vector<Corpus>& corpora() const { return corpora_; }

  std::vector<std::string> tokenize_texts(const WordPiece& word_piece, int max_tokens);  // returns the groups with a text that was cut
  const std::vector<std::int32_t>& text_tokens(std::int32_t text) const { return text_tokens_[text]; }

 private:
  std::pair<const Corpus*, std::uint64_t> at(std::int64_t cell) const;
  std::vector<Corpus> corpora_;
  std::vector<std::int64_t> first_cell_ = {0};
  std::vector<std::string> texts_, groups_;
  std::vector<std::vector<std::int32_t>> texts_of_group_, group_of_label_;  // group_of_label_[corpus][its own group]
  std::vector<std::vector<std::int32_t>> text_tokens_;
};

}  // namespace lc
