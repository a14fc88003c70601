// What the losses share: products of tiles in one thread, bf16 rows as float, and the soft-max of a row of scores.
// A row is padded: the functions below may read and write up to the next multiple of kRowPadding columns.
#pragma once
#include "kernels/kernels.h"

namespace lc::kernels::loss_tiles {

constexpr std::int64_t kRowPadding = 16;

enum class Transpose : std::uint8_t { none, left, right };

// out (rows, columns) = alpha · left · right + beta · out, row-major, in the calling thread only: bits do not depend on the threads.
// The shapes are those of the operands after transposition: left (rows, inner), right (inner, columns).
struct Product {
  std::int64_t rows = 0, columns = 0, inner = 0;
  const float* left = nullptr;
  std::int64_t left_stride = 0;
  const float* right = nullptr;
  std::int64_t right_stride = 0;
  float* out = nullptr;
  std::int64_t out_stride = 0;
  float alpha = 1, beta = 0;
  Transpose transpose = Transpose::none;
};
void multiply(const Product&);

struct FloatRows {
  const float* data = nullptr;
  std::int64_t stride = 0;
};
// Rows [begin, end) of x as float: the rows themselves, or widened into scratch of (end − begin) · columns floats.
FloatRows as_float(Rows<const float> x, std::int64_t begin, std::int64_t end, float* scratch);
FloatRows as_float(Rows<const bf16> x, std::int64_t begin, std::int64_t end, float* scratch);

// to[begin + i] = or += rows[i] for count rows of a gradient.
template <class T>
void store_rows(const Gradient<T>& to, std::int64_t begin, std::int64_t count, const float* rows, std::int64_t stride);

void add(float* to, const float* from, std::int64_t n);

// A running log-sum-exp: sum of exp(x − highest).
struct LogSumExp {
  float highest = 0, sum = 0;  // meaningless while sum is 0
  double value() const;
  void merge(const LogSumExp& other);
};
// Σ_j exp(scores[j] + bias[j]); bias padded with finite numbers. A NaN among the scores gives NaN.
LogSumExp sum_of_exponentials(float* scores, const float* bias, std::int64_t n);

// scores[j] ← factor · exp(scores[j] + bias[j] − shift)
struct Exponentials {
  float* scores = nullptr;
  const float* bias = nullptr;
  std::int64_t n = 0;
  float shift = 0, factor = 1;
};
void exponentials(const Exponentials&);
// The same, adding what it wrote to sums[j].
void exponentials_and_sums(const Exponentials&, float* sums);

}  // namespace lc::kernels::loss_tiles
