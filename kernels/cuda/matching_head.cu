// matching_head: two logits per pair from one row of the text tower, softmax cross-entropy summed over the pairs. Sums run in the order of
// the pairs or in that of a block's threads: no atomics.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"

namespace lc::kernels {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int kLossThreads = 256;

__device__ __forceinline__ double log_sum(const float* logits) {
  const double a = logits[0], b = logits[1];
  return (a < b ? b : a) + log1p(exp(-fabs(a - b)));  // NaN if one of them is, which fmaxf would forget
}
// dloss/dlogit k of one pair.
__device__ __forceinline__ float logit_gradient(const float* logits, int label, int k, float dloss) {
  const double p = exp(static_cast<double>(logits[k]) - log_sum(logits));
  return static_cast<float>((p - (label == k ? 1 : 0)) * static_cast<double>(dloss));
}

// matching_logits_kernel: one warp a pair.
// in   x (T, C), rows (N), weight (2, C), bias (2)      out  logits (N, 2)
// grid (N / 4)   block 128   shared none
template <class T>
__global__ void __launch_bounds__(kThreads) matching_logits_kernel(MatchingHeadForward<T> a) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block();
  if (pair >= a.pairs) return;
  const T* const x = a.x.row(a.rows[pair]);
  float sum[2] = {0, 0};
  for (std::int64_t c = lane_of_warp(); c < a.x.columns; c += kWarpSize) {
    const float v = to_float(x[c]);
    sum[0] += v * to_float(a.weight.row(0)[c]), sum[1] += v * to_float(a.weight.row(1)[c]);
  }
  sum[0] = warp_sum(sum[0]), sum[1] = warp_sum(sum[1]);
  if (lane_of_warp() == 0) a.logits[2 * pair] = sum[0] + a.bias[0], a.logits[2 * pair + 1] = sum[1] + a.bias[1];
}

// matching_loss_kernel: the sum of all pairs' cross-entropies, in double.
// in   logits (N, 2), labels (N)      out  loss (1)
// grid (1)   block 256   shared 8 doubles
__global__ void __launch_bounds__(kLossThreads)
    matching_loss_kernel(const float* logits, const std::int32_t* labels, std::int64_t pairs, float* loss) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; labels && i < pairs; i += kLossThreads) {
    sum += log_sum(logits + 2 * i) - static_cast<double>(logits[2 * i + labels[i]]);
  }
  sum = block_sum(sum, ptx::dynamic_shared<double>());
  if (threadIdx.x == 0) loss[0] = static_cast<float>(sum);
}

// matching_clear_kernel: 0 to every row of dx, one warp a row.      grid (T / 4)   block 128   shared none
template <class T>
__global__ void __launch_bounds__(kThreads) matching_clear_kernel(Rows<T> dx) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block();
  if (row >= dx.rows) return;
  for (std::int64_t c = lane_of_warp(); c < dx.columns; c += kWarpSize) dx.row(row)[c] = from_float<T>(0.0f);
}

// matching_input_gradient_kernel: dx of the rows named, which differ; one warp a pair.      grid (N / 4)   block 128   shared none
template <class T>
__global__ void __launch_bounds__(kThreads) matching_input_gradient_kernel(MatchingHeadBackward<T> a) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block();
  if (pair >= a.pairs) return;
  const float *const logits = a.logits + 2 * pair, dloss = a.dloss[0];
  const float d0 = logit_gradient(logits, a.labels[pair], 0, dloss), d1 = logit_gradient(logits, a.labels[pair], 1, dloss);
  T* const dx = a.dx.to.row(a.rows[pair]);
  for (std::int64_t c = lane_of_warp(); c < a.x.columns; c += kWarpSize) {
    dx[c] = from_float<T>(to_float(dx[c]) + d0 * to_float(a.weight.row(0)[c]) + d1 * to_float(a.weight.row(1)[c]));
  }
}

// matching_weight_gradient_kernel: dweight and dbias, pairs in order; a warp owns 32 columns, the warp after the last one the bias.
// in   x (T, C), rows (N), logits (N, 2)      in and out  dweight (2, C), dbias (2)
// grid (C / 32 + 1)   block 32   shared none
template <class T>
__global__ void __launch_bounds__(kWarpSize) matching_weight_gradient_kernel(MatchingHeadBackward<T> a) {
  const std::int64_t columns = a.x.columns, c = static_cast<std::int64_t>(blockIdx.x) * kWarpSize + lane_of_warp();
  const bool bias = blockIdx.x + 1 == gridDim.x;
  if (bias ? !a.dbias || lane_of_warp() > 0 : !a.dweight || c >= columns) return;
  float sum[2] = {0, 0};
  for (std::int64_t i = 0; i < a.pairs; ++i) {
    const float x = bias ? 1.0f : to_float(a.x.row(a.rows[i])[c]);
    for (int k = 0; k < 2; ++k) sum[k] += logit_gradient(a.logits + 2 * i, a.labels[i], k, a.dloss[0]) * x;
  }
  for (int k = 0; k < 2; ++k) (bias ? a.dbias[k] : a.dweight[k * columns + c]) += sum[k];
}

Grid by_rows(std::int64_t rows) { return {dim3(static_cast<unsigned>(ceil_div(rows, kWarps))), dim3(kThreads)}; }

template <class T>
void forward(const Queue& queue, const MatchingHeadForward<T>& a) {
  launch("matching_logits_kernel", matching_logits_kernel<T>, by_rows(a.pairs), queue, a);
  if (!a.loss) return;
  const Grid one{dim3(1), dim3(kLossThreads), kLossThreads / kWarpSize * sizeof(double)};
  launch("matching_loss_kernel", matching_loss_kernel, one, queue, a.logits, a.labels, a.pairs, a.loss);
}

template <class T>
void backward(const Queue& queue, const MatchingHeadBackward<T>& a) {
  if (a.dx) {
    if (a.dx.into == Into::write) launch("matching_clear_kernel", matching_clear_kernel<T>, by_rows(a.dx.to.rows), queue, a.dx.to);
    launch("matching_input_gradient_kernel", matching_input_gradient_kernel<T>, by_rows(a.pairs), queue, a);
  }
  if (!a.dweight && !a.dbias) return;
  const Grid by_columns{dim3(static_cast<unsigned>(ceil_div(a.x.columns, kWarpSize) + 1)), dim3(kWarpSize)};
  launch("matching_weight_gradient_kernel", matching_weight_gradient_kernel<T>, by_columns, queue, a);
}

}  // namespace

template <>
void matching_head_forward<Device::cuda, float>(Queue queue, const MatchingHeadForward<float>& a) {
  forward(queue, a);
}
template <>
void matching_head_forward<Device::cuda, bf16>(Queue queue, const MatchingHeadForward<bf16>& a) {
  forward(queue, a);
}
template <>
void matching_head_backward<Device::cuda, float>(Queue queue, const MatchingHeadBackward<float>& a) {
  backward(queue, a);
}
template <>
void matching_head_backward<Device::cuda, bf16>(Queue queue, const MatchingHeadBackward<bf16>& a) {
  backward(queue, a);
}

}  // namespace lc::kernels
