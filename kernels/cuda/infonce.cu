// infonce: scores are products whose epilogue reduces them at once (forward, once per direction) or turns them into their gradients
// (backward, both directions together), for so many rows at a time that the matrix of all pairs never exists.
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/softmax_parts.cuh"

namespace lc::kernels {
namespace {

using namespace cuda;

constexpr std::int64_t kHeld = std::int64_t{1} << 21;  // gradients of scores that exist at a time, at most (but for kRows rows)
constexpr std::int64_t kRows = 128;

__device__ __forceinline__ bool in_denominator(const InfoNceGroups& g, std::int64_t i, std::int64_t j) {
  const std::int32_t row = g.group[i], column = g.group[j];
  if (row == column) return i == j || g.same != SamePairs::ignore;
  return g.unrelated == nullptr || g.unrelated[std::int64_t{row} * g.groups + column] != 0;
}
// The share of row i's target mass on column j; the same in both directions.
__device__ __forceinline__ float target(const InfoNceGroups& g, std::int64_t i, std::int64_t j) {
  if (g.same == SamePairs::ignore) return i == j ? 1.0f : 0.0f;
  return g.group[i] == g.group[j] ? 1.0f / static_cast<float>(g.size[g.group[i]]) : 0.0f;
}
// The weight with which pair j stands in the denominator of a→b.
__device__ __forceinline__ float log_weight(const InfoNceGroups& g, std::int64_t j) {
  return g.same == SamePairs::merge ? -logf(static_cast<float>(g.size[g.group[j]])) : 0.0f;
}

struct ForwardEpilogue {  // of one direction
  InfoNceGroups groups;
  const float* scale;
  bool weighted;
  Extent extent;
  SoftmaxPart* parts;
  __device__ void operator()(const Fragment<8>& s, std::int64_t row, std::int64_t column) const {
    put_softmax_parts(s, row, column, extent, parts, [&](std::int64_t i, std::int64_t j, float x, float& wanted) {
      x *= scale[0];
      const float share = target(groups, i, j);
      if (share != 0) wanted += share * x;
      return in_denominator(groups, i, j) ? x + (weighted ? log_weight(groups, j) : 0.0f) : -INFINITY;
    });
  }
};

template <class T>
struct BackwardEpilogue {  // scale · dloss/dscore for rows from `first` on, and each strip's Σ dloss/dscore · product
  InfoNceBackward<T> a;
  std::int64_t first;
  Rows<T> to;
  double* dscale;  // (strips of rows, strips of columns)
  __device__ void operator()(const Fragment<8>& s, std::int64_t row, std::int64_t column) const {
    const float scale = a.scale[0], half = 0.5f * a.dloss[0];
    float sum = 0;
    for_pairs(s, row, column, [&](std::int64_t m, std::int64_t n, float(&v)[2]) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const std::int64_t i = first + m, j = n + e;
        if (m >= to.rows || j >= to.columns) continue;
        const float score = __fmul_rn(scale, v[e]);  // rounded as forward had it: of one pair nothing is left
        float d = -2 * target(a.groups, i, j);
        if (in_denominator(a.groups, i, j)) d += fast_exp(score + log_weight(a.groups, j) - a.lse_a[i]);
        if (in_denominator(a.groups, j, i)) d += fast_exp(score - a.lse_b[j]);
        d *= half;
        sum += d * v[e];
        to.row(m)[j] = from_float<T>(scale * d);
      }
    });
    sum = warp_sum(sum);
    const std::int64_t strips = (to.columns + kStripColumns - 1) / kStripColumns;
    if (lane_of_warp() == 0 && row < to.rows && column < to.columns) {
      dscale[(first + row) / kStripRows * strips + column / kStripColumns] = static_cast<double>(sum);
    }
  }
};

template <class T>
void forward(const Queue& queue, const InfoNceForward<T>& f) {
  const std::int64_t n = f.a.rows;
  const Extent extent{n, n, f.a.columns};
  const Scratch<SoftmaxPart> parts(queue, softmax_parts(extent));
  const Scratch<double> losses(queue, 2 * n);
  const auto direction = [&](const Rows<const T>& from, const Rows<const T>& to, bool weighted, float* lse, double* loss) {
    product<Stored::rows, Stored::rows>("infonce_scores_kernel", queue, from, to, extent, 1,
                                        ForwardEpilogue{f.groups, f.scale, weighted, extent, parts.get()});
    merge_softmax_parts(queue, parts.get(), extent, lse, loss);
  };
  direction(f.a, f.b, true, f.lse_a, losses.get());
  direction(f.b, f.a, false, f.lse_b, losses.get() + n);
  sum_in_order(queue, losses.get(), 2 * n, 0.5, f.loss, Into::write);
}

template <class T>
void backward(const Queue& queue, const InfoNceBackward<T>& g) {
  const std::int64_t n = g.a.rows, columns = g.a.columns, stride = ceil_div(n, 8) * 8;
  if (n == 0) return;
  const std::int64_t rows_held = std::max(kHeld / n / kRows * kRows, kRows), strips = ceil_div(n, kStripColumns);
  const Scratch<T> held(queue, std::min(rows_held, n) * stride);
  const Scratch<double> dscale(queue, ceil_div(n, kStripRows) * strips);
  const Scratch<float> db(queue, g.db ? n * columns : 0);
  for (std::int64_t first = 0; first < n; first += rows_held) {
    const std::int64_t rows = std::min(rows_held, n - first);
    const Rows<T> d{held.get(), rows, n, stride};
    const Rows<const T> a{g.a.row(first), rows, columns, g.a.stride};
    product<Stored::rows, Stored::rows>("infonce_gradient_kernel", queue, a, g.b, {rows, n, columns}, 1,
                                        BackwardEpilogue<T>{g, first, d, dscale.get()});
    if (g.da) {
      linear_input_gradient<Device::cuda, T>(queue,
                                             {.dy = d, .w = g.b, .dx = {{g.da.to.row(first), rows, columns, g.da.to.stride}, g.da.into}});
    }
    if (g.db) {
      float_product<T>(
          queue,
          {.a = d, .b = a, .a_transposed = true, .c = {db.get(), n, columns, columns}, .into = first == 0 ? Into::write : Into::add});
    }
  }
  if (g.db) convert<Device::cuda, float, T>(queue, {{db.get(), n, columns, columns}, g.db.to, g.db.into});
  if (g.dscale) sum_in_order(queue, dscale.get(), ceil_div(n, kStripRows) * strips, 1, g.dscale, Into::add);
}

}  // namespace

template <>
void infonce_forward<Device::cuda, float>(Queue queue, const InfoNceForward<float>& f) {
  forward(queue, f);
}
template <>
void infonce_forward<Device::cuda, bf16>(Queue queue, const InfoNceForward<bf16>& f) {
  forward(queue, f);
}
template <>
void infonce_backward<Device::cuda, float>(Queue queue, const InfoNceBackward<float>& g) {
  backward(queue, g);
}
template <>
void infonce_backward<Device::cuda, bf16>(Queue queue, const InfoNceBackward<bf16>& g) {
  backward(queue, g);
}

}  // namespace lc::kernels
