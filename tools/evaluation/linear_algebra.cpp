// Lanczos keeps its whole basis: the spectrum of expression data is flat behind the first components, and a lost orthogonality shows there
// first.
#include "tools/evaluation/linear_algebra.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace lc {
namespace {

// One implicit QL sweep over rows first … last: chases the shift's bulge upwards and accumulates the rotations in the rows of z.
void ql_sweep(std::vector<double>& d, std::vector<double>& e, Matrix& z, size_t first, size_t last) {
  double g = (d[first + 1] - d[first]) / (2 * e[first]);
  double r = std::hypot(g, 1.0);
  g = d[last] - d[first] + e[first] / (g + std::copysign(r, g));
  double s = 1, c = 1, p = 0;
  for (size_t i = last; i-- > first;) {
    const double f = s * e[i], b = c * e[i];
    r = std::hypot(f, g);
    e[i + 1] = r;
    if (r == 0) {
      d[i + 1] -= p;
      e[last] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = d[i + 1] - p;
    r = (d[i] - g) * s + 2 * c * b;
    p = s * r;
    d[i + 1] = g + p;
    g = c * r - b;
    const auto upper = z.row(i + 1), lower = z.row(i);
    for (size_t k = 0; k < z.columns; ++k) {
      const double u = upper[k], l = lower[k];
      upper[k] = s * l + c * u;
      lower[k] = c * l - s * u;
    }
  }
  d[first] -= p;
  e[first] = g;
  e[last] = 0;
}

void settle_signs(Matrix& vectors) {
  for (size_t k = 0; k < vectors.rows; ++k) {
    double largest = 0;
    for (double x : vectors.row(k)) {
      if (std::abs(x) > std::abs(largest) * (1 + 1e-9)) largest = x;
    }
    if (largest >= 0) continue;
    for (double& x : vectors.row(k)) x = -x;
  }
}

Eigen descending(const std::vector<double>& values, const Matrix& vectors) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return values[a] > values[b]; });
  Eigen eigen{{}, Matrix(vectors.rows, vectors.columns)};
  for (size_t k = 0; k < order.size(); ++k) {
    eigen.values.push_back(values[order[k]]);
    std::ranges::copy(vectors.row(order[k]), eigen.vectors.row(k).begin());
  }
  settle_signs(eigen.vectors);
  return eigen;
}

double remove_projections(const std::vector<std::vector<double>>& basis, std::vector<double>& x) {
  for (int pass = 0; pass < 2; ++pass) {  // the second pass removes what rounding left of the first
    for (const auto& v : basis) {
      const double along = dot(v, x);
      for (size_t i = 0; i < x.size(); ++i) x[i] -= along * v[i];
    }
  }
  return std::sqrt(dot(x, x));
}

// A unit vector orthogonal to the basis: the start, and the way on when the space the start can reach is exhausted.
std::vector<double> fresh_direction(const std::vector<std::vector<double>>& basis, size_t size, std::mt19937_64& bits) {
  std::vector<double> x(size);  // uniform in (-1, 1): std::normal_distribution differs between standard libraries
  for (double& value : x) value = static_cast<double>(bits() >> 11) * 0x1p-52 - 1.0;
  const double norm = remove_projections(basis, x);
  for (double& value : x) value /= norm;
  return x;
}

// Ritz vectors: the tridiagonal's vectors carried back by the basis.
Eigen ritz_pairs(const Eigen& small, const std::vector<std::vector<double>>& basis, size_t wanted) {
  const size_t size = basis[0].size();
  Eigen eigen{std::vector<double>(wanted, 0.0), Matrix(wanted, size)};
  for (size_t k = 0; k < std::min(wanted, basis.size()); ++k) {
    eigen.values[k] = std::max(small.values[k], 0.0);
    for (size_t j = 0; j < basis.size(); ++j) {
      const double weight = small.vectors.row(k)[j];
      for (size_t i = 0; i < size; ++i) eigen.vectors.row(k)[i] += weight * basis[j][i];
    }
  }
  settle_signs(eigen.vectors);
  return eigen;
}

}  // namespace

double dot(std::span<const double> a, std::span<const double> b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

Eigen tridiagonal_eigen(std::vector<double> diagonal, std::vector<double> off_diagonal) {
  const size_t n = diagonal.size();
  Matrix z(n, n);
  for (size_t i = 0; i < n; ++i) z.row(i)[i] = 1;
  off_diagonal.resize(n, 0.0);
  for (size_t first = 0; first < n; ++first) {
    while (true) {
      size_t last = first;
      while (last + 1 < n && std::abs(off_diagonal[last]) > 1e-16 * (std::abs(diagonal[last]) + std::abs(diagonal[last + 1]))) ++last;
      if (last == first) break;
      ql_sweep(diagonal, off_diagonal, z, first, last);
    }
  }
  return descending(diagonal, z);
}

Eigen leading_eigen(const SymmetricProduct& product, size_t size, const LanczosOptions& options) {
  constexpr size_t kBetweenChecks = 25;
  if (size == 0 || options.pairs == 0) return {std::vector<double>(options.pairs, 0.0), Matrix(options.pairs, size)};
  const size_t wanted = std::min(options.pairs, size);
  std::mt19937_64 bits(options.seed);
  std::vector<std::vector<double>> basis{fresh_direction({}, size, bits)};
  std::vector<double> alpha, beta;
  while (true) {
    std::vector<double> next = product(basis.back());
    alpha.push_back(dot(basis.back(), next));
    const double norm = remove_projections(basis, next);
    const double scale = *std::ranges::max_element(alpha);
    const bool exhausted = norm <= 1e-12 * std::abs(scale);
    const bool whole = basis.size() == size || (exhausted && std::abs(alpha.back()) <= 1e-12 * std::abs(scale));  // the rest is null space
    if (whole || (basis.size() > wanted && (basis.size() - wanted) % kBetweenChecks == 0)) {
      const Eigen small = tridiagonal_eigen(alpha, beta);
      double residual = 0;
      for (size_t k = 0; k < wanted; ++k) residual = std::max(residual, norm * std::abs(small.vectors.row(k)[basis.size() - 1]));
      if (whole || (!exhausted && residual <= options.tolerance * small.values[0])) return ritz_pairs(small, basis, options.pairs);
    }
    beta.push_back(exhausted ? 0.0 : norm);
    for (double& x : next) x /= norm;
    basis.push_back(exhausted ? fresh_direction(basis, size, bits) : std::move(next));
  }
}

}  // namespace lc
