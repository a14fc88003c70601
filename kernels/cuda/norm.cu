// Residual + dropout + LayerNorm, forward and backward, and L2 normalisation: one warp a row, each row read from memory once.
// dγ, dβ and dbias go through one partial per 64 rows, added in order: no atomics, the same bits every time.
#include "kernels/cuda/hidden_dropout.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_slots.cuh"

namespace lc::kernels {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr std::int64_t kPartialRows = 64;  // per partial sum, at least; residual_norm_workspace has room for these

template <class T>
__device__ __forceinline__ float as_stored(float x) {
  return to_float(from_float<T>(x));
}

// ---- rows of at most 512·V columns that can be cut into sixteens: a warp holds its row in registers, 16 columns a lane

constexpr int kPiece = 16;
constexpr std::int64_t kWidestRow = 1024;
constexpr std::int64_t kBlocks = 396;  // of a backward pass at most: as many as 132 multiprocessors hold at a time

template <int V, class F>
__device__ __forceinline__ void for_pieces(std::int64_t columns, F&& f) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int c = (v * kWarpSize + lane_of_warp()) * kPiece;
    if (c < columns) f(v, c);
  }
}

// residual_norm_forward_kernel: sum = residual + dropout(x + bias), y = LayerNorm(sum), one warp a row.
// in   x, residual (T, C), bias, γ, β (C)      out  sum, y (T, C), statistics (T, 2)
// grid (T / 4)   block 128   shared none
// moves every matrix once; statistics in float from the numbers as they are stored
template <int V, class T>
__global__ void __launch_bounds__(kThreads) residual_norm_forward_kernel(ResidualNormForward<T> a) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block(), columns = a.x.columns;
  if (row >= a.x.rows) return;
  float s[V][kPiece], residual[V][kPiece];
  for_pieces<V>(columns, [&](int v, int c) {
    load(s[v], a.x.row(row) + c);
    if (a.residual.data) load(residual[v], a.residual.row(row) + c);
  });
  const bool chance = a.dropout.rate > 0;
  const HiddenRow mask = chance ? hidden_row(a.dropout, a.packing, row) : HiddenRow{};
  float total = 0, squares = 0;
  for_pieces<V>(columns, [&](int v, int c) {
    if (a.bias) {
      float bias[kPiece];
      load(bias, a.bias + c);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) s[v][i] += bias[i];
    }
    if (chance) drop(s[v], a.dropout, mask, c);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      s[v][i] = as_stored<T>(a.residual.data ? s[v][i] + residual[v][i] : s[v][i]);
      total += s[v][i];
    }
    if (a.sum.data) store(s[v], a.sum.row(row) + c);
  });
  const float mean = warp_sum(total) / static_cast<float>(columns);
  for_pieces<V>(columns, [&](int v, int) {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) s[v][i] -= mean, squares += s[v][i] * s[v][i];
  });
  const float inverse = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(columns) + a.norm.eps);
  for_pieces<V>(columns, [&](int v, int c) {
    float weight[kPiece], y[kPiece];
    load(weight, a.norm.weight + c), load(y, a.norm.shift + c);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) y[i] += s[v][i] * inverse * weight[i];
    store(y, a.y.row(row) + c);
  });
  if (a.statistics && lane_of_warp() == 0) a.statistics[2 * row] = mean, a.statistics[2 * row + 1] = inverse;
}

// x into rows of a gradient; 16 columns.
template <class T>
__device__ __forceinline__ void put(const float (&x)[kPiece], T* to, Into into) {
  if (into == Into::write) return store(x, to);
  float y[kPiece];
  load(y, to);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) y[i] += x[i];
  store(y, to);
}

template <int V, class T>
struct NormRow {  // what a row brings from memory, asked for while the row before is computed
  Vector<T, kPiece> dy[V], sum[V];
  float mean, inverse;
  std::int32_t sequence;

  __device__ __forceinline__ void fetch(const ResidualNormBackward<T>& a, std::int64_t row) {
    if (row >= a.dy.rows) return;
    for_pieces<V>(a.dy.columns, [&](int v, int c) {
      dy[v] = *reinterpret_cast<const Vector<T, kPiece>*>(a.dy.row(row) + c);
      sum[v] = *reinterpret_cast<const Vector<T, kPiece>*>(a.sum.row(row) + c);
    });
    mean = a.statistics[2 * row], inverse = a.statistics[2 * row + 1];
    if (a.dropout.rate > 0) sequence = a.packing.sequence_of[row];
  }
  __device__ __forceinline__ float hat(int v, int i) const { return (to_float(sum[v].of[i]) - mean) * inverse; }
};

// residual_norm_backward_kernel: ds = r (g − mean(g) − ŝ mean(g ŝ)), g = dy·γ; dx = ds under forward's mask. A block does neighbours.
// in   dy, sum (T, C), statistics (T, 2), γ (C)      out  dx, dresidual (T, C), partials (blocks, 3, C): dγ, dβ, dbias
// grid (blocks)   block 128   shared 4·3·512·V floats: each warp's partial sums
// moves every matrix once
// deterministic: rows in order within a warp, warps in order
template <int V, class T>
__global__ void __launch_bounds__(kThreads, V > 1            ? 1
                                            : sizeof(T) == 2 ? 3
                                                             : 2)
    residual_norm_backward_kernel(ResidualNormBackward<T> a, std::int64_t rows_of_block) {
  const std::int64_t columns = a.dy.columns, first = static_cast<std::int64_t>(blockIdx.x) * rows_of_block;
  const std::int64_t end = first + rows_of_block < a.dy.rows ? first + rows_of_block : a.dy.rows;
  const bool chance = a.dropout.rate > 0;
  float sums[3][V][kPiece] = {};
  HiddenRows masks;
  NormRow<V, T> next;
  next.fetch(a, first + warp_of_block());
  for (std::int64_t row = first + warp_of_block(); row < end; row += kWarps) {
    const NormRow<V, T> now = next;
    next.fetch(a, row + kWarps);
    float total = 0, along = 0;
    for_pieces<V>(columns, [&](int v, int c) {
      float weight[kPiece];
      load(weight, a.norm.weight + c);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        const float d = to_float(now.dy[v].of[i]), along_d = d * now.hat(v, i);
        total = fmaf(d, weight[i], total), along = fmaf(along_d, weight[i], along);
        sums[0][v][i] += along_d, sums[1][v][i] += d;
      }
    });
    const float mean_g = warp_sum(total) / static_cast<float>(columns), mean_along = warp_sum(along) / static_cast<float>(columns);
    const HiddenRow mask = chance ? masks.at(a.dropout, a.packing, row, now.sequence) : HiddenRow{};
    for_pieces<V>(columns, [&](int v, int c) {
      float ds[kPiece], weight[kPiece];
      load(weight, a.norm.weight + c);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        ds[i] = now.inverse * (fmaf(to_float(now.dy[v].of[i]), weight[i], -mean_g) - now.hat(v, i) * mean_along);
      }
      if (a.dresidual) put(ds, a.dresidual.to.row(row) + c, a.dresidual.into);
      if (chance) drop(ds, a.dropout, mask, c);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) sums[2][v][i] += ds[i];
      if (a.dx) put(ds, a.dx.to.row(row) + c, a.dx.into);
    });
  }
  float* const shared = ptx::dynamic_shared<float>();
  const std::int64_t room = slots<kPiece>(columns);
  for_pieces<V>(columns, [&](int v, int c) {
#pragma unroll
    for (int i = 0; i < 3 * kPiece; ++i) {
      shared[(3 * warp_of_block() + i / kPiece) * room + slot<kPiece>(c) + i % kPiece * kWarpSize] = sums[i / kPiece][v][i % kPiece];
    }
  });
  __syncthreads();
  put_partials<kPiece, kWarps>(shared, columns, a.workspace + static_cast<std::int64_t>(blockIdx.x) * 3 * columns);
}

// ---- rows of any width and alignment

// residual_norm_forward_plain_kernel: sum = residual + dropout(x + bias), y = LayerNorm(sum), one warp a row.
// in   x, residual (T, C), bias, γ, β (C)      out  sum, y (T, C), statistics (T, 2)
// grid (T / 4)   block 128   shared 4·C floats (C rounded up to 32): the row between the passes
// moves every matrix once; statistics in float from the numbers as they are stored
template <class T>
__global__ void __launch_bounds__(kThreads) residual_norm_forward_plain_kernel(ResidualNormForward<T> a) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block(), columns = a.x.columns;
  if (row >= a.x.rows) return;
  float* const s = ptx::dynamic_shared<float>() + warp_of_block() * slots<1>(columns);
  const bool chance = a.dropout.rate > 0;
  const HiddenRow mask = chance ? hidden_row(a.dropout, a.packing, row) : HiddenRow{};
  float total = 0, squares = 0;
  for_columns<1>(columns, [&](std::int64_t c) {
    float v[1] = {to_float(a.x.row(row)[c]) + (a.bias ? a.bias[c] : 0.0f)};
    if (chance) drop(v, a.dropout, mask, c);
    if (a.residual.data) v[0] += to_float(a.residual.row(row)[c]);
    s[c] = as_stored<T>(v[0]);
    total += s[c];
    if (a.sum.data) a.sum.row(row)[c] = from_float<T>(s[c]);
  });
  const float mean = warp_sum(total) / static_cast<float>(columns);
  for_columns<1>(columns, [&](std::int64_t c) { squares += (s[c] - mean) * (s[c] - mean); });
  const float inverse = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(columns) + a.norm.eps);
  for_columns<1>(columns,
                 [&](std::int64_t c) { a.y.row(row)[c] = from_float<T>((s[c] - mean) * inverse * a.norm.weight[c] + a.norm.shift[c]); });
  if (a.statistics && lane_of_warp() == 0) a.statistics[2 * row] = mean, a.statistics[2 * row + 1] = inverse;
}

template <class T>
__device__ __forceinline__ void put_one(float x, T* to, Into into) {
  *to = from_float<T>(into == Into::add ? to_float(*to) + x : x);
}

// residual_norm_backward_plain_kernel: as residual_norm_backward_kernel; one block 64 rows, a warp 16.
// grid (T / 64)   block 128   shared 4·3·C floats (C rounded up to 32): each warp's partial sums
// moves dy and sum twice (the second time from L1), the gradients once
// deterministic: rows in order within a warp, warps in order
template <class T>
__global__ void __launch_bounds__(kThreads) residual_norm_backward_plain_kernel(ResidualNormBackward<T> a) {
  const std::int64_t columns = a.dy.columns, first = static_cast<std::int64_t>(blockIdx.x) * kPartialRows;
  float* const shared = ptx::dynamic_shared<float>();
  const std::int64_t room = slots<1>(columns);
  float* const own = shared + warp_of_block() * 3 * room;
  for (std::int64_t i = lane_of_warp(); i < 3 * room; i += kWarpSize) own[i] = 0;
  __syncwarp();
  const bool chance = a.dropout.rate > 0;
  constexpr std::int64_t kRows = kPartialRows / kWarps;
  for (std::int64_t r = 0; r < kRows; ++r) {
    const std::int64_t row = first + warp_of_block() * kRows + r;
    if (row >= a.dy.rows) break;
    const float mean = a.statistics[2 * row], inverse = a.statistics[2 * row + 1];
    const auto gradient = [&](std::int64_t c) { return to_float(a.dy.row(row)[c]); };
    const auto hat = [&](std::int64_t c) { return (to_float(a.sum.row(row)[c]) - mean) * inverse; };
    float total = 0, along = 0;
    for_columns<1>(columns, [&](std::int64_t c) {
      const float d = gradient(c), h = hat(c);
      total += d * a.norm.weight[c], along += d * a.norm.weight[c] * h;
      own[c] += d * h, own[room + c] += d;
    });
    const float mean_g = warp_sum(total) / static_cast<float>(columns), mean_along = warp_sum(along) / static_cast<float>(columns);
    const HiddenRow mask = chance ? hidden_row(a.dropout, a.packing, row) : HiddenRow{};
    for_columns<1>(columns, [&](std::int64_t c) {
      float ds[1] = {inverse * (gradient(c) * a.norm.weight[c] - mean_g - hat(c) * mean_along)};
      const float residual = ds[0];
      if (chance) drop(ds, a.dropout, mask, c);
      own[2 * room + c] += ds[0];
      if (a.dresidual) put_one(residual, a.dresidual.to.row(row) + c, a.dresidual.into);
      if (a.dx) put_one(ds[0], a.dx.to.row(row) + c, a.dx.into);
    });
  }
  __syncthreads();
  put_partials<1, kWarps>(shared, columns, a.workspace + static_cast<std::int64_t>(blockIdx.x) * 3 * columns);
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
  const float norm = sqrtf(warp_sum(squares)), inverse = 1.0f / (norm < 1e-12f ? 1e-12f : norm);  // of NaN NaN, where fmaxf gives 1e12
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
  const std::int64_t rows = a.x.rows, columns = a.x.columns;
  const bool wide = columns <= kWidestRow && fits_rows(a.x) && fits_rows(a.residual) && fits_rows(a.sum) && fits_rows(a.y) &&
                    fits_vector(a.bias) && fits_vector(a.norm.weight) && fits_vector(a.norm.shift);
  if (wide) {
    const auto kernel = columns <= kWidestRow / 2 ? residual_norm_forward_kernel<1, T> : residual_norm_forward_kernel<2, T>;
    return launch("residual_norm_forward_kernel", kernel, by_rows(rows), queue, a);
  }
  launch("residual_norm_forward_plain_kernel", residual_norm_forward_plain_kernel<T>,
         by_rows(rows, static_cast<std::size_t>(kWarps * slots<1>(columns)) * sizeof(float)), queue, a);
}

template <class T>
void norm_backward(const Queue& queue, const ResidualNormBackward<T>& a) {
  const std::int64_t rows = a.dy.rows, columns = a.dy.columns;
  std::int64_t chunks = ceil_div(rows, kPartialRows);
  const bool wide = columns <= kWidestRow && fits_rows(a.dy) && fits_rows(a.sum) && fits_rows(a.dx.to) && fits_rows(a.dresidual.to) &&
                    fits_vector(a.norm.weight);
  const auto grid = [&](std::int64_t room) {
    return Grid{dim3(static_cast<unsigned>(chunks)), dim3(kThreads), static_cast<std::size_t>(kWarps * 3 * room) * sizeof(float)};
  };
  if (wide && rows > 0) {
    const std::int64_t rows_of_block = ceil_div(rows, std::min(chunks, kBlocks));
    chunks = ceil_div(rows, rows_of_block);
    const auto kernel = columns <= kWidestRow / 2 ? residual_norm_backward_kernel<1, T> : residual_norm_backward_kernel<2, T>;
    launch("residual_norm_backward_kernel", kernel, grid(slots<kPiece>(columns)), queue, a, rows_of_block);
  } else {
    launch("residual_norm_backward_plain_kernel", residual_norm_backward_plain_kernel<T>, grid(slots<1>(columns)), queue, a);
  }
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
