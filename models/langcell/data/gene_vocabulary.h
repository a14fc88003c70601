// Genes and their token ids: the rows of genes.tsv (`<pad>` 0, `<mask>` 1, genes from 2) plus `<cls>`, which is always the last id
// and never a row. Each gene has the median of its non-zero CP10k values, the scale of the rank-value encoding.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/langcell/data/count_block.h"

namespace lc {

struct Gene {
  std::string ensembl_id, name;
  double median = 0;
};

class GeneVocabulary {
 public:
  static constexpr std::int32_t pad = 0, mask = 1, first_gene = 2;

  GeneVocabulary() = default;
  explicit GeneVocabulary(std::vector<Gene> genes);               // gene i gets token i + 2; DataError on a repeated id or a median <= 0
  static GeneVocabulary read(const std::filesystem::path& path);  // DataError naming file:line
  static GeneVocabulary parse(std::string_view tsv, std::string_view where);
  void write(const std::filesystem::path& path) const;  // atomically
  std::string tsv() const;

  std::int32_t size() const { return static_cast<std::int32_t>(genes_.size()) + first_gene + 1; }  // with <cls>
  std::int32_t cls() const { return size() - 1; }
  std::int32_t token_of(std::string_view ensembl_id) const;  // version suffix ignored; -1: not a gene of the vocabulary
  const Gene& gene(std::int32_t token) const { return genes_.at(static_cast<size_t>(token - first_gene)); }
  std::span<const Gene> genes() const { return genes_; }  // gene i has token i + 2
  std::vector<double> medians() const;                    // (size), by token; 1 for the special tokens
  std::string hash() const;                               // SHA-256 over ids and medians; names do not count

 private:
  struct TextHash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::vector<Gene> genes_;
  std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>> token_of_;
};

// A vocabulary from data: exact medians, so every non-zero value is held (4 bytes each).
// Ids ascend with the Ensembl ids; a gene that no cell has gets no row; columns of one gene are summed within a cell first.
class MedianBuilder {
 public:
  void begin_matrix(std::span<const std::string> ensembl_ids, std::span<const std::string> names);  // per column; an empty id: not a gene
  void add(const CountBlock& block);
  std::uint64_t values() const { return held_; }  // so far: every non-zero is kept, 4 bytes each, so that medians are exact
  GeneVocabulary finish();                        // DataError when no gene was seen

 private:
  struct Values {
    std::string name;
    std::vector<float> cp10k;
  };
  std::vector<std::string> ids_;
  std::vector<Values> values_;
  std::unordered_map<std::string, std::int32_t> gene_of_id_;
  std::vector<std::int32_t> gene_of_column_;
  std::vector<float> sum_of_gene_;
  std::uint64_t held_ = 0;
};

}  // namespace lc
