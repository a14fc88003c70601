// Residual + dropout + LayerNorm, forward and backward, and L2 normalisation: one warp a row, each row read from memory once.
// dγ, dβ and dbias go through one partial per 64 rows, added in order: no atomics, the same bits every time.
#include "kernels/cuda/hidden_dropout.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_slots.cuh"

namespace lc::kernels {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int kPartialRows = 64;  // per partial sum; residual_norm_workspace has room for these

template <class T>
__device__ __forceinline__ float as_stored(float x) {
  return to_float(from_float<T>(x));
}

// residual_norm_forward_kernel: sum = residual + dropout(x + bias), y = LayerNorm(sum), one warp a row.
// in   x, residual (T, C), bias, γ, β (C)      out  sum, y (T, C), statistics (T, 2)
// grid (T / 4)   block 128   shared 4·C floats (C rounded up to 512): the row between the passes
// moves every matrix once; statistics in float from the numbers as they are stored
template <int N, class T>
__global__ void __launch_bounds__(kThreads) residual_norm_forward_kernel(ResidualNormForward<T> a) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block(), columns = a.x.columns;
  if (row >= a.x.rows) return;
  float* const s = ptx::dynamic_shared<float>() + warp_of_block() * slots<N>(columns);
  const bool chance = a.dropout.rate > 0;
  const HiddenRow mask = chance ? hidden_row(a.dropout, a.packing, row) : HiddenRow{};
  float total = 0, squares = 0;
  for_columns<N>(columns, [&](std::int64_t c) {
    float v[N], other[N];
    load(v, a.x.row(row) + c);
    if (a.bias) {
      load(other, a.bias + c);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += other[i];
    }
    if (chance) drop(v, a.dropout, mask, c);
    if (a.residual.data) {
      load(other, a.residual.row(row) + c);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += other[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = as_stored<T>(v[i]), total += v[i], s[slot<N>(c) + i * kWarpSize] = v[i];
    if (a.sum.data) store(v, a.sum.row(row) + c);
  });
  const float mean = warp_sum(total) / static_cast<float>(columns);
  for_columns<N>(columns, [&](std::int64_t c) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float d = s[slot<N>(c) + i * kWarpSize] - mean;
      squares += d * d;
    }
  });
  const float inverse = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(columns) + a.norm.eps);
  for_columns<N>(columns, [&](std::int64_t c) {
    float weight[N], y[N];
    load(weight, a.norm.weight + c), load(y, a.norm.shift + c);
#pragma unroll
    for (int i = 0; i < N; ++i) y[i] += (s[slot<N>(c) + i * kWarpSize] - mean) * inverse * weight[i];
    store(y, a.y.row(row) + c);
  });
  if (a.statistics && lane_of_warp() == 0) a.statistics[2 * row] = mean, a.statistics[2 * row + 1] = inverse;
}

// residual_norm_backward_kernel: ds = r (g − mean(g) − ŝ mean(g ŝ)), g = dy·γ; dx = ds under forward's mask. One block 64 rows, a warp 16.
// in   dy, sum (T, C), statistics (T, 2), γ (C)      out  dx, dresidual (T, C), partials (T / 64, 3, C): dγ, dβ, dbias
// grid (T / 64)   block 128   shared 4·3·C floats (C rounded up to 512): each warp's partial sums
// moves dy and sum twice (the second time from L1), the gradients once
// deterministic: rows in order within a warp, warps in order
template <int N, class T>
__global__ void __launch_bounds__(kThreads) residual_norm_backward_kernel(ResidualNormBackward<T> a) {
  const std::int64_t columns = a.dy.columns, first = static_cast<std::int64_t>(blockIdx.x) * kPartialRows;
  float* const shared = ptx::dynamic_shared<float>();
  const std::int64_t room = slots<N>(columns);
  float* const own = shared + warp_of_block() * 3 * room;
  for (std::int64_t i = lane_of_warp(); i < 3 * room; i += kWarpSize) own[i] = 0;
  __syncwarp();
  const bool chance = a.dropout.rate > 0;
  constexpr int kRows = kPartialRows / kWarps;
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = first + warp_of_block() * kRows + r;
    if (row >= a.dy.rows) break;
    const float mean = a.statistics[2 * row], inverse = a.statistics[2 * row + 1];
    float total = 0, along = 0;
    for_columns<N>(columns, [&](std::int64_t c) {
      float d[N], hat[N], weight[N];
      load(d, a.dy.row(row) + c), load(hat, a.sum.row(row) + c), load(weight, a.norm.weight + c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        hat[i] = (hat[i] - mean) * inverse;
        total += d[i] * weight[i], along += d[i] * weight[i] * hat[i];
        own[slot<N>(c) + i * kWarpSize] += d[i] * hat[i], own[room + slot<N>(c) + i * kWarpSize] += d[i];
      }
    });
    const float mean_g = warp_sum(total) / static_cast<float>(columns), mean_along = warp_sum(along) / static_cast<float>(columns);
    const HiddenRow mask = chance ? hidden_row(a.dropout, a.packing, row) : HiddenRow{};
    for_columns<N>(columns, [&](std::int64_t c) {
      float d[N], hat[N], weight[N], ds[N], before[N];
      load(d, a.dy.row(row) + c), load(hat, a.sum.row(row) + c), load(weight, a.norm.weight + c);
#pragma unroll
      for (int i = 0; i < N; ++i) ds[i] = inverse * (d[i] * weight[i] - mean_g - (hat[i] - mean) * inverse * mean_along);
      if (a.dresidual) {
        T* const to = a.dresidual.to.row(row) + c;
#pragma unroll
        for (int i = 0; i < N; ++i) d[i] = ds[i];
        if (a.dresidual.into == Into::add) {
          load(before, to);
#pragma unroll
          for (int i = 0; i < N; ++i) d[i] += before[i];
        }
        store(d, to);
      }
      if (chance) drop(ds, a.dropout, mask, c);
#pragma unroll
      for (int i = 0; i < N; ++i) own[2 * room + slot<N>(c) + i * kWarpSize] += ds[i];
      if (a.dx) {
        T* const to = a.dx.to.row(row) + c;
        if (a.dx.into == Into::add) {
          load(before, to);
#pragma unroll
          for (int i = 0; i < N; ++i) ds[i] += before[i];
        }
        store(ds, to);
      }
    });
  }
  __syncthreads();
  put_partials<N, kWarps>(shared, columns, a.workspace + static_cast<std::int64_t>(blockIdx.x) * 3 * columns);
}

// l2_normalize_forward_kernel: y = x / max(‖x‖, 1e-12), one warp a row.      grid (T / 4)   block 128   shared none
template <int N, class T>
__global__ void __launch_bounds__(kThreads) l2_normalize_forward_kernel(L2NormalizeForward<T> a) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block();
  if (row >= a.x.rows) return;
  float squares = 0, x[N];
  for_columns<N>(a.x.columns, [&](std::int64_t c) {
    load(x, a.x.row(row) + c);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += x[i] * x[i];
  });
  const float inverse = 1.0f / fmaxf(sqrtf(warp_sum(squares)), 1e-12f);
  for_columns<N>(a.x.columns, [&](std::int64_t c) {
    load(x, a.x.row(row) + c);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] *= inverse;
    store(x, a.y.row(row) + c);
  });
  if (a.inverse_norm && lane_of_warp() == 0) a.inverse_norm[row] = inverse;
}

// l2_normalize_backward_kernel: dx = (dy − y (dy·y)) / ‖x‖, one warp a row.      grid (T / 4)   block 128   shared none
template <int N, class T>
__global__ void __launch_bounds__(kThreads) l2_normalize_backward_kernel(L2NormalizeBackward<T> a) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block();
  if (row >= a.dy.rows) return;
  float dot = 0, dy[N], y[N];
  for_columns<N>(a.dy.columns, [&](std::int64_t c) {
    load(dy, a.dy.row(row) + c), load(y, a.y.row(row) + c);
#pragma unroll
    for (int i = 0; i < N; ++i) dot += dy[i] * y[i];
  });
  dot = warp_sum(dot);
  const float inverse = a.inverse_norm[row], along = inverse >= 1e12f ? 0.0f : dot;  // clamped: the norm is a constant
  for_columns<N>(a.dy.columns, [&](std::int64_t c) {
    T* const to = a.dx.to.row(row) + c;
    float before[N] = {};
    load(dy, a.dy.row(row) + c), load(y, a.y.row(row) + c);
    if (a.dx.into == Into::add) load(before, to);
#pragma unroll
    for (int i = 0; i < N; ++i) before[i] += inverse * (dy[i] - y[i] * along);
    store(before, to);
  });
}

Grid by_rows(std::int64_t rows, std::size_t shared = 0) {
  return {dim3(static_cast<unsigned>(ceil_div(rows, kWarps))), dim3(kThreads), shared};
}
template <class T>
void norm_forward(const Queue& queue, const ResidualNormForward<T>& a) {
  const bool wide = fits_rows(a.x) && fits_rows(a.residual) && fits_rows(a.sum) && fits_rows(a.y) && fits_vector(a.bias) &&
                    fits_vector(a.norm.weight) && fits_vector(a.norm.shift);
  launch("residual_norm_forward_kernel", wide ? residual_norm_forward_kernel<16, T> : residual_norm_forward_kernel<1, T>,
         by_rows(a.x.rows, static_cast<std::size_t>(kWarps * (wide ? slots<16>(a.x.columns) : slots<1>(a.x.columns))) * sizeof(float)),
         queue, a);
}

template <class T>
void norm_backward(const Queue& queue, const ResidualNormBackward<T>& a) {
  const std::int64_t rows = a.dy.rows, columns = a.dy.columns, chunks = ceil_div(rows, kPartialRows);
  const bool wide = fits_rows(a.dy) && fits_rows(a.sum) && fits_rows(a.dx.to) && fits_rows(a.dresidual.to) && fits_vector(a.norm.weight);
  const std::size_t shared = static_cast<std::size_t>(kWarps * 3 * (wide ? slots<16>(columns) : slots<1>(columns))) * sizeof(float);
  const Grid grid{dim3(static_cast<unsigned>(chunks)), dim3(kThreads), shared};
  launch("residual_norm_backward_kernel", wide ? residual_norm_backward_kernel<16, T> : residual_norm_backward_kernel<1, T>, grid, queue,
         a);
  if (rows > 0) add_partials(queue, {a.workspace, chunks, columns}, std::array{a.dweight, a.dshift, a.dbias});
}

template <class T>
void unit_forward(const Queue& queue, const L2NormalizeForward<T>& a) {
  launch("l2_normalize_forward_kernel",
         fits_rows(a.x) && fits_rows(a.y) ? l2_normalize_forward_kernel<16, T> : l2_normalize_forward_kernel<1, T>, by_rows(a.x.rows),
         queue, a);
}
template <class T>
void unit_backward(const Queue& queue, const L2NormalizeBackward<T>& a) {
  const bool wide = fits_rows(a.dy) && fits_rows(a.y) && fits_rows(a.dx.to);
  launch("l2_normalize_backward_kernel", wide ? l2_normalize_backward_kernel<16, T> : l2_normalize_backward_kernel<1, T>,
         by_rows(a.dy.rows), queue, a);
}

}  // namespace

template <>
void residual_norm_forward<Device::cuda, float>(Queue queue, const ResidualNormForward<float>& a) {
  norm_forward(queue, a);
}
template <>
void residual_norm_forward<Device::cuda, bf16>(Queue queue, const ResidualNormForward<bf16>& a) {
  norm_forward(queue, a);
}
template <>
void residual_norm_backward<Device::cuda, float>(Queue queue, const ResidualNormBackward<float>& a) {
  norm_backward(queue, a);
}
template <>
void residual_norm_backward<Device::cuda, bf16>(Queue queue, const ResidualNormBackward<bf16>& a) {
  norm_backward(queue, a);
}
template <>
void l2_normalize_forward<Device::cuda, float>(Queue queue, const L2NormalizeForward<float>& a) {
  unit_forward(queue, a);
}
template <>
void l2_normalize_forward<Device::cuda, bf16>(Queue queue, const L2NormalizeForward<bf16>& a) {
  unit_forward(queue, a);
}
template <>
void l2_normalize_backward<Device::cuda, float>(Queue queue, const L2NormalizeBackward<float>& a) {
  unit_backward(queue, a);
}
template <>
void l2_normalize_backward<Device::cuda, bf16>(Queue queue, const L2NormalizeBackward<bf16>& a) {
  unit_backward(queue, a);
}

}  // namespace lc::kernels
