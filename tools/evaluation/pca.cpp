// Centring stays implicit: the sparse matrix is never filled with minus the mean.
#include "tools/evaluation/pca.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "engine/errors.h"
#include "engine/machine.h"

namespace lc {
namespace {

struct SparseRows {
  size_t rows = 0, columns = 0;
  std::vector<int64_t> indptr;
  std::vector<int32_t> indices;
  std::vector<double> values;
};

SparseRows log_normalised(const SparseCounts& counts) {
  SparseRows out{counts.rows, counts.columns, {0}, {}, {}};
  std::vector<std::pair<int32_t, double>> row;
  const std::vector<double> sums = totals(counts);
  for (size_t r = 0; r < counts.rows; ++r) {
    row.clear();
    for (auto i = static_cast<size_t>(counts.indptr[r]); i < static_cast<size_t>(counts.indptr[r + 1]); ++i)
      row.emplace_back(counts.indices[i], counts.values[i]);
    std::ranges::stable_sort(row, {}, &std::pair<int32_t, double>::first);
    for (size_t i = 0; i < row.size();) {
      double sum = 0;
      const int32_t column = row[i].first;
      for (; i < row.size() && row[i].first == column; ++i) sum += row[i].second;
      if (sum == 0) continue;
      out.indices.push_back(column);
      out.values.push_back(std::log1p(sum / sums[r] * 1e4));
    }
    out.indptr.push_back(static_cast<int64_t>(out.indices.size()));
  }
  return out;
}

SparseRows transposed(const SparseRows& a) {
  SparseRows t{a.columns, a.rows, std::vector<int64_t>(a.columns + 1, 0), std::vector<int32_t>(a.indices.size()),
               std::vector<double>(a.values.size())};
  for (int32_t c : a.indices) ++t.indptr[static_cast<size_t>(c) + 1];
  std::partial_sum(t.indptr.begin(), t.indptr.end(), t.indptr.begin());
  std::vector<int64_t> next(t.indptr.begin(), t.indptr.end() - 1);
  for (size_t r = 0; r < a.rows; ++r) {
    for (auto i = static_cast<size_t>(a.indptr[r]); i < static_cast<size_t>(a.indptr[r + 1]); ++i) {
      const auto to = static_cast<size_t>(next[static_cast<size_t>(a.indices[i])]++);
      t.indices[to] = static_cast<int32_t>(r);
      t.values[to] = a.values[i];
    }
  }
  return t;
}

SparseRows only_columns(const SparseRows& a, const std::vector<int32_t>& columns) {
  std::vector<int32_t> place(a.columns, -1);
  for (size_t k = 0; k < columns.size(); ++k) place[static_cast<size_t>(columns[k])] = static_cast<int32_t>(k);
  SparseRows out{a.rows, columns.size(), {0}, {}, {}};
  for (size_t r = 0; r < a.rows; ++r) {
    for (auto i = static_cast<size_t>(a.indptr[r]); i < static_cast<size_t>(a.indptr[r + 1]); ++i) {
      const int32_t to = place[static_cast<size_t>(a.indices[i])];
      if (to < 0) continue;
      out.indices.push_back(to);
      out.values.push_back(a.values[i]);
    }
    out.indptr.push_back(static_cast<int64_t>(out.indices.size()));
  }
  return out;
}

// (A − 1 meanᵀ) x of a matrix with cells in rows.
std::vector<double> centred_product(const SparseRows& a, std::span<const double> mean, std::span<const double> x) {
  const double shift = dot(mean, x);
  std::vector<double> y(a.rows);
  parallel_for(static_cast<int64_t>(a.rows), 4096, [&](int64_t begin, int64_t end, int64_t) {
    for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) {
      double sum = -shift;
      for (auto i = static_cast<size_t>(a.indptr[r]); i < static_cast<size_t>(a.indptr[r + 1]); ++i)
        sum += a.values[i] * x[static_cast<size_t>(a.indices[i])];
      y[r] = sum;
    }
  });
  return y;
}

struct Moments {
  std::vector<double> mean, variance;
};

Moments column_moments(const SparseRows& by_column) {  // given transposed: a gene per row
  Moments m{std::vector<double>(by_column.rows, 0.0), std::vector<double>(by_column.rows, 0.0)};
  const auto cells = static_cast<double>(by_column.columns);
  for (size_t g = 0; g < by_column.rows; ++g) {
    const auto first = static_cast<size_t>(by_column.indptr[g]), last = static_cast<size_t>(by_column.indptr[g + 1]);
    double sum = 0, squares = 0;
    for (size_t i = first; i < last; ++i) sum += by_column.values[i];
    m.mean[g] = sum / cells;
    for (size_t i = first; i < last; ++i) squares += (by_column.values[i] - m.mean[g]) * (by_column.values[i] - m.mean[g]);
    m.variance[g] = (squares + (cells - static_cast<double>(last - first)) * m.mean[g] * m.mean[g]) / cells;
  }
  return m;
}

std::vector<int32_t> most_variable(const std::vector<double>& variance, size_t wanted) {
  std::vector<int32_t> genes(variance.size());
  std::iota(genes.begin(), genes.end(), 0);
  std::ranges::stable_sort(genes,
                           [&](int32_t a, int32_t b) { return variance[static_cast<size_t>(a)] > variance[static_cast<size_t>(b)]; });
  genes.resize(std::min(wanted, genes.size()));
  std::erase_if(genes, [&](int32_t g) { return variance[static_cast<size_t>(g)] <= 0; });
  std::ranges::sort(genes);
  return genes;
}

}  // namespace

std::vector<double> totals(const SparseCounts& counts) {
  std::vector<double> sums(counts.rows, 0.0);
  for (size_t r = 0; r < counts.rows; ++r) {
    for (auto i = static_cast<size_t>(counts.indptr[r]); i < static_cast<size_t>(counts.indptr[r + 1]); ++i) sums[r] += counts.values[i];
  }
  return sums;
}

SparseCounts with_genes(const SparseCounts& counts, const std::vector<std::string>& names, const std::vector<std::string>& wanted) {
  if (names == wanted) return counts;
  std::unordered_map<std::string, int32_t> place;
  for (size_t k = 0; k < wanted.size(); ++k) place.emplace(wanted[k], static_cast<int32_t>(k));
  // One column behind the wanted genes takes all other counts, so that the sum of a cell stays what it was.
  const auto rest = static_cast<int32_t>(wanted.size());
  SparseCounts out = counts;
  out.columns = wanted.size() + 1;
  for (int32_t& column : out.indices) {
    const auto found = place.find(names[static_cast<size_t>(column)]);
    column = found == place.end() ? rest : found->second;
  }
  return out;
}

ExpressionPca ExpressionPca::fit(const SparseCounts& train, const ExpressionPcaOptions& options) {
  if (train.rows < 2) throw DataError(fmt::format("principal components: {} training cells, at least 2 are needed", train.rows));
  const SparseRows all = log_normalised(train);
  const Moments moments = column_moments(transposed(all));
  ExpressionPca pca;
  pca.columns_ = train.columns;
  pca.genes_ = most_variable(moments.variance, options.genes);
  for (int32_t g : pca.genes_) pca.mean_.push_back(moments.mean[static_cast<size_t>(g)]);
  const SparseRows cells = only_columns(all, pca.genes_), by_gene = transposed(cells);
  const std::vector<double> no_mean(cells.rows, 0.0);
  // (A − 1 meanᵀ)ᵀ y needs no second correction: y, a centred product, sums to zero.
  auto covariance = [&](std::span<const double> x) { return centred_product(by_gene, no_mean, centred_product(cells, pca.mean_, x)); };
  Eigen eigen = leading_eigen(covariance, pca.genes_.size(), {options.components, options.seed});
  for (double value : eigen.values) pca.singular_.push_back(std::sqrt(value));
  pca.axes_ = std::move(eigen.vectors);
  return pca;
}

Matrix ExpressionPca::transform(const SparseCounts& counts) const {
  if (counts.columns < columns_) {
    throw DataError(
        fmt::format("principal components: fitted on {} genes, applied to {}: align the columns first", columns_, counts.columns));
  }
  const SparseRows cells = only_columns(log_normalised(counts), genes_);
  Matrix scores(counts.rows, axes_.rows);
  for (size_t k = 0; k < axes_.rows; ++k) {
    const std::vector<double> along = centred_product(cells, mean_, axes_.row(k));
    for (size_t r = 0; r < counts.rows; ++r) scores.row(r)[k] = along[r];
  }
  return scores;
}

DensePca pca_of_rows(std::span<const float> values, size_t columns, size_t components) {
  const size_t rows = columns == 0 ? 0 : values.size() / columns;
  Matrix centred(rows, columns);
  std::vector<double> mean(columns, 0.0);
  for (size_t i = 0; i < rows * columns; ++i) mean[i % columns] += values[i];
  double variance = 0;
  for (size_t i = 0; i < rows * columns; ++i) {
    centred.values[i] = values[i] - mean[i % columns] / static_cast<double>(rows);
    variance += centred.values[i] * centred.values[i];
  }
  auto covariance = [&](std::span<const double> x) {
    std::vector<double> y(columns, 0.0);
    for (size_t r = 0; r < rows; ++r) {
      const auto row = centred.row(r);
      const double along = dot(row, x);
      for (size_t i = 0; i < columns; ++i) y[i] += along * row[i];
    }
    return y;
  };
  const Eigen eigen = leading_eigen(covariance, columns, {components, 0});
  DensePca pca{Matrix(rows, components), {}};
  for (size_t k = 0; k < components; ++k) {
    for (size_t r = 0; r < rows; ++r) pca.scores.row(r)[k] = dot(centred.row(r), eigen.vectors.row(k));
    pca.explained.push_back(variance > 0 ? eigen.values[k] / variance : 0.0);
  }
  return pca;
}

}  // namespace lc
