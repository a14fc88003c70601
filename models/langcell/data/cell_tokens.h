// Counts to tokens: the rank-value encoding (Theodoris et al. 2023), genes by descending count / n_counts · 10⁴ / median.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/langcell/data/count_block.h"
#include "models/langcell/data/gene_vocabulary.h"

namespace lc {

struct CellTokens {                   // no <cls>; a cell without a known gene has length 0
  std::vector<std::int64_t> offsets;  // (cells+1)
  std::vector<std::int32_t> tokens;
  std::int64_t cells() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::span<const std::int32_t> cell(std::int64_t i) const {
    const auto begin = static_cast<size_t>(offsets[static_cast<size_t>(i)]), end = static_cast<size_t>(offsets[static_cast<size_t>(i) + 1]);
    return std::span(tokens).subspan(begin, end - begin);
  }
};

// For the columns of one matrix.
class CellTokenizer {
 public:
  CellTokenizer(const GeneVocabulary& vocabulary, std::span<const std::string> ensembl_ids, std::int64_t max_genes);  // ids per column
  CellTokens encode(const CountBlock& block) const;  // DataError when a column is outside the matrix

  std::span<const std::int32_t> token_of_column() const { return token_of_column_; }  // -1: not in the vocabulary
  std::int64_t known_genes() const { return known_genes_; }                           // distinct vocabulary genes among the columns
  std::int64_t repeated_columns() const { return repeated_columns_; }  // columns of a gene that an earlier column has: counts are summed

  // A number for each cell's sorted (token, count) pairs, equal for equal cells of any file; 0 for cells with fewer than min_genes.
  std::vector<std::uint64_t> fingerprints(const CountBlock& block, std::int64_t min_genes) const;

 private:
  std::uint64_t fingerprint(const CountBlock& block, size_t cell, std::int64_t min_genes) const;
  std::vector<std::int32_t> token_of_column_;
  std::vector<double> medians_;
  std::int64_t max_genes_, known_genes_ = 0, repeated_columns_ = 0;
};

// Fingerprints met so far, in about nine bytes each; room for `most` is taken at once.
class SeenCells {
 public:
  explicit SeenCells(std::uint64_t most) : slots_(most + most / 8 + 1, 0) {}
  bool insert(std::uint64_t fingerprint);  // not 0; false: met before

 private:
  std::vector<std::uint64_t> slots_;
};

}  // namespace lc
