// Some cells of a count matrix, row by row (CSR), as the readers hand them over and the tokenizer takes them.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace lc {

struct CountBlock {
  std::span<const std::int64_t> indptr;   // (cells+1), from 0, into columns and counts
  std::span<const std::int32_t> columns;  // (nnz) in any order; one column may occur twice
  std::span<const float> counts;          // (nnz)
  std::int64_t cells() const { return indptr.empty() ? 0 : static_cast<std::int64_t>(indptr.size()) - 1; }
};

// What each cell is divided by: the sum over all its columns, in double, rounded once (obs/n_counts is never read).
inline std::vector<float> n_counts_of(const CountBlock& block) {
  std::vector<float> sums(static_cast<size_t>(block.cells()));
  for (size_t cell = 0; cell < sums.size(); ++cell) {
    double sum = 0;
    for (std::int64_t i = block.indptr[cell]; i < block.indptr[cell + 1]; ++i) sum += block.counts[static_cast<size_t>(i)];
    sums[cell] = static_cast<float>(sum);
  }
  return sums;
}

}  // namespace lc
