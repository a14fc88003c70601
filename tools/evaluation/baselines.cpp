// L-BFGS keeps its last pairs of steps and gradient changes; sums over cells go by fixed chunks, so threads change nothing.
#include "tools/evaluation/baselines.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <set>
#include <unordered_map>

#include "engine/errors.h"
#include "engine/machine.h"
#include "tools/evaluation/pca.h"

namespace lc {
namespace {

constexpr int64_t kChunk = 2048;  // cells of one partial sum, added in order; below it a thread costs more than it brings

int largest(std::span<const double> scores) { return static_cast<int>(std::ranges::max_element(scores) - scores.begin()); }

// Scores of one point, turned into probabilities; returns log Σ exp(score).
double softmax(const Matrix& weights, std::span<const double> x, std::span<double> p) {
  for (size_t c = 0; c < weights.rows; ++c) {
    const auto w = weights.row(c);
    p[c] = dot(w.first(x.size()), x) + w[x.size()];
  }
  const double top = *std::ranges::max_element(p);
  double sum = 0;
  for (double score : p) sum += std::exp(score - top);
  const double log_sum = top + std::log(sum);
  for (double& score : p) score = std::exp(score - log_sum);
  return log_sum;
}

struct Loss {
  double value = 0;
  Matrix gradient;
};

// Cross-entropy of the rows [first, last) and its gradient.
Loss loss_of_rows(const LabelledPoints& train, const Matrix& weights, size_t first, size_t last) {
  const size_t columns = train.points.columns;
  Loss loss{0, Matrix(weights.rows, weights.columns)};
  std::vector<double> p(weights.rows);
  for (size_t r = first; r < last; ++r) {
    const auto x = train.points.row(r);
    const auto label = static_cast<size_t>(train.labels[r]);
    const double score = dot(weights.row(label).first(columns), x) + weights.row(label)[columns];
    loss.value += softmax(weights, x, p) - score;
    p[label] -= 1;
    for (size_t c = 0; c < weights.rows; ++c) {
      auto g = loss.gradient.row(c);
      for (size_t i = 0; i < columns; ++i) g[i] += p[c] * x[i];
      g[columns] += p[c];
    }
  }
  return loss;
}

Loss objective(const LabelledPoints& train, const Matrix& weights, double inverse_penalty) {
  const auto rows = static_cast<int64_t>(train.points.rows);
  std::vector<Loss> partial(static_cast<size_t>(kernels::chunks_of(rows, kChunk)));
  parallel_for(rows, kChunk, [&](int64_t begin, int64_t end, int64_t chunk) {
    partial[static_cast<size_t>(chunk)] = loss_of_rows(train, weights, static_cast<size_t>(begin), static_cast<size_t>(end));
  });
  Loss total{0, Matrix(weights.rows, weights.columns)};
  for (const Loss& part : partial) {
    total.value += inverse_penalty * part.value;
    for (size_t i = 0; i < total.gradient.values.size(); ++i) total.gradient.values[i] += inverse_penalty * part.gradient.values[i];
  }
  for (size_t c = 0; c < weights.rows; ++c) {
    for (size_t i = 0; i + 1 < weights.columns; ++i) {
      const double w = weights.values[c * weights.columns + i];
      total.value += 0.5 * w * w;
      total.gradient.values[c * weights.columns + i] += w;
    }
  }
  return total;
}

struct Pair {
  std::vector<double> step, change;  // of the weights and of the gradient
  double rho;
};

// The two-loop recursion (Nocedal and Wright, algorithm 7.4): minus the inverse Hessian's estimate times the gradient.
std::vector<double> direction(const std::deque<Pair>& memory, std::vector<double> q) {
  std::vector<double> alpha(memory.size());
  for (size_t k = memory.size(); k-- > 0;) {
    alpha[k] = memory[k].rho * dot(memory[k].step, q);
    for (size_t i = 0; i < q.size(); ++i) q[i] -= alpha[k] * memory[k].change[i];
  }
  const double scale = memory.empty() ? 1.0 : 1 / (memory.back().rho * dot(memory.back().change, memory.back().change));
  for (double& x : q) x *= -scale;
  for (size_t k = 0; k < memory.size(); ++k) {
    const double beta = memory[k].rho * dot(memory[k].change, q);
    for (size_t i = 0; i < q.size(); ++i) q[i] -= (alpha[k] + beta) * memory[k].step[i];
  }
  return q;
}

// Halves the step until the loss falls as much as the slope promises (Armijo); false when it no longer can, which is rounding.
bool line_search(const LabelledPoints& train, double inverse_penalty, std::span<const double> along, Matrix& weights, Loss& loss) {
  const double slope = dot(loss.gradient.values, along);
  const double length = std::sqrt(dot(along, along));
  for (double t = std::min(1.0, 10 / std::max(length, 1e-300)); t > 1e-12; t *= 0.5) {
    Matrix tried = weights;
    for (size_t i = 0; i < along.size(); ++i) tried.values[i] += t * along[i];
    Loss there = objective(train, tried, inverse_penalty);
    if (there.value <= loss.value + 1e-4 * t * slope) {
      weights = std::move(tried);
      loss = std::move(there);
      return true;
    }
  }
  return false;
}

double largest_entry(const std::vector<double>& values) {
  double largest_so_far = 0;
  for (double v : values) largest_so_far = std::max(largest_so_far, std::abs(v));
  return largest_so_far;
}

void check(const LabelledPoints& train) {
  if (train.points.rows == 0 || train.labels.size() != train.points.rows) {
    throw DataError(fmt::format("baselines: {} training cells with {} labels: labelled training cells are needed", train.points.rows,
                                train.labels.size()));
  }
}

int vote(const LabelledPoints& train, std::span<const double> x, size_t neighbours) {
  const size_t k = std::min(neighbours, train.points.rows);
  std::vector<std::pair<double, size_t>> distance(train.points.rows);  // equal distances: the earlier training cell
  for (size_t i = 0; i < train.points.rows; ++i) {
    const auto y = train.points.row(i);
    double sum = 0;
    for (size_t d = 0; d < x.size(); ++d) sum += (x[d] - y[d]) * (x[d] - y[d]);
    distance[i] = {sum, i};
  }
  std::nth_element(distance.begin(), distance.begin() + static_cast<std::ptrdiff_t>(k - 1), distance.end());
  std::vector<double> votes(train.classes, 0.0);
  for (size_t i = 0; i < k; ++i) votes[static_cast<size_t>(train.labels[distance[i].second])] += 1;
  return largest(votes);
}

}  // namespace

std::vector<int> majority_class(std::span<const int> train_labels, size_t test_rows) {
  std::vector<double> counts(train_labels.empty() ? 1 : static_cast<size_t>(std::ranges::max(train_labels)) + 1, 0.0);
  for (int label : train_labels) counts[static_cast<size_t>(label)] += 1;
  return std::vector<int>(test_rows, largest(counts));
}

std::vector<int> nearest_neighbours(const LabelledPoints& train, const Matrix& test, size_t neighbours) {
  check(train);
  std::vector<int> labels(test.rows);
  parallel_for(static_cast<int64_t>(test.rows), 16, [&](int64_t begin, int64_t end, int64_t) {
    for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) labels[r] = vote(train, test.row(r), neighbours);
  });
  return labels;
}

LogisticRegression LogisticRegression::fit(const LabelledPoints& train, const LogisticOptions& options) {
  check(train);
  constexpr size_t kMemory = 20;
  LogisticRegression model;
  model.weights_ = Matrix(train.classes, train.points.columns + 1);
  Loss loss = objective(train, model.weights_, options.inverse_penalty);
  std::deque<Pair> memory;
  for (size_t iteration = 0; iteration < options.max_iterations; ++iteration) {
    if (largest_entry(loss.gradient.values) <= options.tolerance) break;
    const Matrix weights = model.weights_;
    const std::vector<double> gradient = loss.gradient.values;
    if (!line_search(train, options.inverse_penalty, direction(memory, gradient), model.weights_, loss)) {
      if (memory.empty()) break;
      memory.clear();
      continue;
    }
    Pair pair{model.weights_.values, loss.gradient.values, 0};
    for (size_t i = 0; i < gradient.size(); ++i) {
      pair.step[i] -= weights.values[i];
      pair.change[i] -= gradient[i];
    }
    const double curvature = dot(pair.step, pair.change);
    if (curvature <= 1e-12 * dot(pair.step, pair.step)) continue;
    pair.rho = 1 / curvature;
    memory.push_back(std::move(pair));
    if (memory.size() > kMemory) memory.pop_front();
  }
  model.converged_ = largest_entry(loss.gradient.values) <= options.tolerance;
  return model;
}

Matrix LogisticRegression::probabilities(const Matrix& points) const {
  Matrix p(points.rows, weights_.rows);
  for (size_t r = 0; r < points.rows; ++r) softmax(weights_, points.row(r), p.row(r));
  return p;
}

std::vector<int> LogisticRegression::predict(const Matrix& points) const {
  const Matrix p = probabilities(points);
  std::vector<int> labels;
  for (size_t r = 0; r < points.rows; ++r) labels.push_back(largest(p.row(r)));
  return labels;
}

BaselineLabels baseline_labels(const SparseCounts& train, std::span<const std::string> train_labels, const SparseCounts& test,
                               const BaselineOptions& options) {
  SparseCounts labelled{0, train.columns, {0}, {}, {}};
  std::set<std::string> names;
  for (size_t r = 0; r < train.rows; ++r) {
    if (train_labels[r].empty()) continue;
    const auto first = train.indptr[r], last = train.indptr[r + 1];
    labelled.indices.insert(labelled.indices.end(), train.indices.begin() + first, train.indices.begin() + last);
    labelled.values.insert(labelled.values.end(), train.values.begin() + first, train.values.begin() + last);
    labelled.indptr.push_back(static_cast<int64_t>(labelled.indices.size()));
    ++labelled.rows;
    names.insert(train_labels[r]);
  }
  const std::vector<std::string> classes(names.begin(), names.end());
  std::unordered_map<std::string, int> number;
  for (size_t k = 0; k < classes.size(); ++k) number[classes[k]] = static_cast<int>(k);
  std::vector<int> labels;
  for (const auto& label : train_labels) {
    if (!label.empty()) labels.push_back(number[label]);
  }
  const ExpressionPca pca = ExpressionPca::fit(labelled, {options.components, options.genes, options.seed});
  const Matrix train_points = pca.transform(labelled), test_points = pca.transform(test);
  const LabelledPoints points{train_points, labels, classes.size()};
  auto named = [&](const std::vector<int>& predicted) {
    std::vector<std::string> out;
    for (int p : predicted) out.push_back(classes[static_cast<size_t>(p)]);
    return out;
  };
  return {named(majority_class(labels, test.rows)), named(nearest_neighbours(points, test_points, options.neighbours)),
          named(LogisticRegression::fit(points, {}).predict(test_points))};
}

}  // namespace lc
