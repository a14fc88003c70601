// The kernel does the arithmetic; this maps columns to tokens and packs the result.
#include "models/langcell/data/cell_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <utility>

#include "engine/errors.h"
#include "kernels/kernels.h"

namespace lc {

namespace {

void check_block(const CountBlock& block, size_t columns) {
  for (const std::int32_t column : block.columns)
    if (column < 0 || static_cast<size_t>(column) >= columns)
      throw DataError(fmt::format("counts: column {} in a matrix of {} columns; the file is damaged", column, columns));
}

std::uint64_t mix(std::uint64_t h) {  // splitmix64's finaliser (Steele et al. 2014)
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  return h ^ (h >> 31);
}

}  // namespace

CellTokenizer::CellTokenizer(const GeneVocabulary& vocabulary, std::span<const std::string> ensembl_ids, std::int64_t max_genes)
    : token_of_column_(ensembl_ids.size()), medians_(vocabulary.medians()), max_genes_(max_genes) {
  std::vector<bool> seen(medians_.size(), false);
  for (size_t column = 0; column < ensembl_ids.size(); ++column) {
    const std::int32_t token = token_of_column_[column] = vocabulary.token_of(ensembl_ids[column]);
    if (token < 0) continue;
    ++(seen[static_cast<size_t>(token)] ? repeated_columns_ : known_genes_);
    seen[static_cast<size_t>(token)] = true;
  }
}

CellTokens CellTokenizer::encode(const CountBlock& block) const {
  check_block(block, token_of_column_.size());
  const auto cells = static_cast<size_t>(block.cells());
  const std::vector<float> n_counts = n_counts_of(block);
  std::vector<std::int32_t> padded(cells * static_cast<size_t>(max_genes_)), lengths(cells);
  kernels::RankEncoding job;
  job.cells = block.cells();
  job.indptr = block.indptr.data();
  job.columns = block.columns.data();
  job.counts = block.counts.data();
  job.n_counts = n_counts.data();
  job.token_of_column = token_of_column_.data();
  job.median_of_token = medians_.data();
  job.max_tokens = max_genes_;
  job.tokens = padded.data();
  job.lengths = lengths.data();
  kernels::rank_encoding<Device::cpu>(Queue{}, job);

  CellTokens packed;
  packed.offsets.push_back(0);
  for (size_t cell = 0; cell < cells; ++cell) {
    const auto row = padded.begin() + static_cast<std::ptrdiff_t>(cell) * max_genes_;
    packed.tokens.insert(packed.tokens.end(), row, row + lengths[cell]);
    packed.offsets.push_back(static_cast<std::int64_t>(packed.tokens.size()));
  }
  return packed;
}

std::uint64_t CellTokenizer::fingerprint(const CountBlock& block, size_t cell, std::int64_t min_genes) const {
  const auto mixed = [](std::int32_t token, float count) {
    return mix(0x9e3779b97f4a7c15u + ((static_cast<std::uint64_t>(token) << 32) | std::bit_cast<std::uint32_t>(count)));
  };
  std::uint64_t sum = 0;
  std::int64_t genes = 0;
  std::map<std::int32_t, float> summed;  // where columns share genes: these are one count
  for (auto i = static_cast<size_t>(block.indptr[cell]); i < static_cast<size_t>(block.indptr[cell + 1]); ++i) {
    const std::int32_t token = token_of_column_[static_cast<size_t>(block.columns[i])];
    if (token < 0 || block.counts[i] == 0) continue;
    if (repeated_columns_ > 0)
      summed[token] += block.counts[i];
    else
      sum += mixed(token, block.counts[i]), ++genes;
  }
  for (const auto& [token, count] : summed) sum += mixed(token, count), ++genes;
  if (genes < min_genes) return 0;
  const std::uint64_t hash = mix(sum + static_cast<std::uint64_t>(genes));
  return hash == 0 ? 1 : hash;
}

std::vector<std::uint64_t> CellTokenizer::fingerprints(const CountBlock& block, std::int64_t min_genes) const {
  check_block(block, token_of_column_.size());
  std::vector<std::uint64_t> prints(static_cast<size_t>(block.cells()));
  for (size_t cell = 0; cell < prints.size(); ++cell) prints[cell] = fingerprint(block, cell, min_genes);
  return prints;
}

bool SeenCells::insert(std::uint64_t fingerprint) {
  size_t slot = fingerprint % slots_.size();
  while (slots_[slot] != 0 && slots_[slot] != fingerprint) slot = slot + 1 == slots_.size() ? 0 : slot + 1;
  if (slots_[slot] == fingerprint) return false;
  slots_[slot] = fingerprint;
  return true;
}

}  // namespace lc
