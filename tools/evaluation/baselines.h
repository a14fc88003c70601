// What LangCell is compared with: the majority class, nearest neighbours and logistic regression on principal components of the counts.
// All of them see the training cells' labels and nothing of the test cells but their counts.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tools/evaluation/linear_algebra.h"
#include "tools/evaluation/sparse_counts.h"

namespace lc {

// Classes are numbered 0 … classes − 1; ties go to the smaller number.
std::vector<int> majority_class(std::span<const int> train_labels, size_t test_rows);

struct LabelledPoints {
  const Matrix& points;
  std::span<const int> labels;  // one per row
  size_t classes;
};

// Vote of the `neighbours` nearest training points, Euclidean, each vote the same.
std::vector<int> nearest_neighbours(const LabelledPoints& train, const Matrix& test, size_t neighbours);

struct LogisticOptions {
  double inverse_penalty = 1.0;  // scikit-learn's C: minimises C · Σ cross-entropy + ½‖W‖², intercepts free
  double tolerance = 1e-4;       // largest entry of the gradient
  size_t max_iterations = 2000;
};

// Multinomial logistic regression by L-BFGS in double; the objective is convex, so the answer does not depend on a start.
class LogisticRegression {
 public:
  static LogisticRegression fit(const LabelledPoints& train, const LogisticOptions& options);
  std::vector<int> predict(const Matrix& points) const;
  Matrix probabilities(const Matrix& points) const;  // (rows × classes)
  bool converged() const { return converged_; }

 private:
  Matrix weights_;  // (classes × (columns + 1)), the intercept last
  bool converged_ = false;
};

struct BaselineLabels {  // one label per test cell each
  std::vector<std::string> majority, knn_pca, logistic_pca;
};

struct BaselineOptions {
  size_t components = 50, genes = 2000, neighbours = 15;
  uint64_t seed = 0;
};

// The columns of both matrices must be the same genes (with_genes); training cells without a label ("") are left out.
BaselineLabels baseline_labels(const SparseCounts& train, std::span<const std::string> train_labels, const SparseCounts& test,
                               const BaselineOptions& options);

}  // namespace lc
