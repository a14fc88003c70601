// Principal components: of log-normalised counts (fitted on training cells, applied to others), and of a dense matrix such as z.
#pragma once
#include <span>

#include "tools/evaluation/linear_algebra.h"
#include "tools/evaluation/sparse_counts.h"

namespace lc {

struct ExpressionPcaOptions {
  size_t components = 50;
  size_t genes = 2000;  // the most variable ones among the training cells
  uint64_t seed = 0;
};

// log1p(counts / sum over all genes × 10,000) of the most variable genes, centred, not scaled to unit variance: scaling made neighbours
// worse by four points of macro-F1 on PBMC. Genes, centre and axes come from the training cells alone.
class ExpressionPca {
 public:
  static ExpressionPca fit(const SparseCounts& train, const ExpressionPcaOptions& options);
  Matrix transform(const SparseCounts& counts) const;  // (cells × components); the columns must be those of the training cells

  const std::vector<int32_t>& genes() const { return genes_; }              // ascending column numbers
  const std::vector<double>& singular_values() const { return singular_; }  // descending

 private:
  size_t columns_ = 0;
  std::vector<int32_t> genes_;
  std::vector<double> mean_, singular_;
  Matrix axes_;  // (components × genes)
};

struct DensePca {
  Matrix scores;                  // (rows × components)
  std::vector<double> explained;  // share of the variance per component
};
DensePca pca_of_rows(std::span<const float> values, size_t columns, size_t components);

}  // namespace lc
