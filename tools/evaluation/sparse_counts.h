// A count matrix as the evaluation sees it: cells in rows, genes in columns, CSR. Plain data, so that no file format is known here.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace lc {

struct SparseCounts {
  size_t rows = 0, columns = 0;
  std::vector<int64_t> indptr;   // rows + 1
  std::vector<int32_t> indices;  // column of each value; a column may repeat within a row: the values add up
  std::vector<float> values;     // raw counts
};

// The same cells in the order of `wanted` genes: columns are matched by name, a gene the matrix lacks is zero everywhere.
// Counts of other genes would be lost to the library size, so `totals` returns each row's sum over all genes.
SparseCounts with_genes(const SparseCounts& counts, const std::vector<std::string>& names, const std::vector<std::string>& wanted);
std::vector<double> totals(const SparseCounts& counts);

}  // namespace lc
