// The small linear algebra the evaluation needs, in double. Every sum has a fixed order: results do not depend on the number of threads.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace lc {

struct Matrix {  // row-major
  Matrix() = default;
  Matrix(size_t rows_, size_t columns_) : rows(rows_), columns(columns_), values(rows_ * columns_, 0.0) {}
  std::span<double> row(size_t i) { return {values.data() + i * columns, columns}; }
  std::span<const double> row(size_t i) const { return {values.data() + i * columns, columns}; }

  size_t rows = 0, columns = 0;
  std::vector<double> values;
};

double dot(std::span<const double> a, std::span<const double> b);

struct Eigen {
  std::vector<double> values;  // descending
  Matrix vectors;              // one per row; the largest entry of each is positive, so signs are settled
};

// Eigenpairs of a symmetric tridiagonal matrix by implicit QL (Wilkinson's shifts); off_diagonal has one entry less than diagonal.
Eigen tridiagonal_eigen(std::vector<double> diagonal, std::vector<double> off_diagonal);

struct LanczosOptions {
  size_t pairs = 50;        // wanted: the largest ones
  uint64_t seed = 0;        // of the start vector
  double tolerance = 1e-9;  // residual over the largest eigenvalue
};

// The largest eigenpairs of a symmetric positive semi-definite matrix known only by its products y = S x, to the tolerance: Lanczos with
// full reorthogonalisation. Pairs beyond the matrix's size are zero.
using SymmetricProduct = std::function<std::vector<double>(std::span<const double>)>;
Eigen leading_eigen(const SymmetricProduct& product, size_t size, const LanczosOptions& options);

}  // namespace lc
