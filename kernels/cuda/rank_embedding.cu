// rank_embedding: gather of gene + position + type, LayerNorm and dropout in one pass, one warp a row. Gradients without atomics: of the
// vectors through one partial per 128 rows, of the table over the rows sorted by id, because <mask> and <cls> have thousands of hits.
#include "kernels/cuda/hidden_dropout.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_slots.cuh"

namespace lc::kernels {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int kRows = 128;  // per partial sum and per chunk of sorted rows; rank_embedding_workspace has room for these

// rank_embedding_forward_kernel: sum = table[id] + positions[row in sequence] + type, y = dropout(LayerNorm(sum)), one warp a row.
// in   ids (T), table (V, C), positions (P, C), type (C)      out  sum, y (T, C), statistics (T, 2)
// grid (T / 4)   block 128   shared 4·C floats (C rounded up to 512): the row between the passes
template <int N, class T>
__global__ void __launch_bounds__(kThreads) rank_embedding_forward_kernel(RankEmbeddingForward<T> a) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_of_block(), columns = a.y.columns;
  if (row >= a.y.rows) return;
  float* const s = ptx::dynamic_shared<float>() + warp_of_block() * slots<N>(columns);
  const T* const word = a.table.row(a.ids[row]);
  const T* const position = a.positions.row(row - a.packing.offsets[a.packing.sequence_of[row]]);
  float total = 0, squares = 0;
  for_columns<N>(columns, [&](std::int64_t c) {
    float v[N], other[N];
    load(v, word + c), load(other, position + c);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] += other[i];
    if (a.type) {
      load(other, a.type + c);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += other[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) total += v[i], s[slot<N>(c) + i * kWarpSize] = v[i];
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
  const bool chance = a.dropout.rate > 0;
  const HiddenRow mask = chance ? hidden_row(a.dropout, a.packing, row) : HiddenRow{};
  for_columns<N>(columns, [&](std::int64_t c) {
    float weight[N], y[N];
    load(weight, a.norm.weight + c), load(y, a.norm.shift + c);
#pragma unroll
    for (int i = 0; i < N; ++i) y[i] += (s[slot<N>(c) + i * kWarpSize] - mean) * inverse * weight[i];
    if (chance) drop(y, a.dropout, mask, c);
    store(y, a.y.row(row) + c);
  });
  if (a.statistics && lane_of_warp() == 0) a.statistics[2 * row] = mean, a.statistics[2 * row + 1] = inverse;
}

// rank_embedding_backward_kernel: dsum of every row, through dropout and LayerNorm. One block 128 rows, a warp 32.
// in   dy, sum (T, C), statistics (T, 2), γ (C)      out  dsum (T, C) float, partials (T / 128, 3, C): dγ, dβ, dtype
// grid (T / 128)   block 128   shared 4·3·C floats (C rounded up to 512): each warp's partial sums
// deterministic: rows in order within a warp, warps in order
template <int N, class T>
__global__ void __launch_bounds__(kThreads) rank_embedding_backward_kernel(RankEmbeddingBackward<T> a, float* partials) {
  const std::int64_t columns = a.dy.columns, room = slots<N>(columns);
  float* const shared = ptx::dynamic_shared<float>();
  float* const own = shared + warp_of_block() * 3 * room;
  for (std::int64_t i = lane_of_warp(); i < 3 * room; i += kWarpSize) own[i] = 0;
  __syncwarp();
  const bool chance = a.dropout.rate > 0;
  constexpr int kOwn = kRows / kWarps;
  for (int r = 0; r < kOwn; ++r) {
    const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRows + warp_of_block() * kOwn + r;
    if (row >= a.dy.rows) break;
    const float mean = a.statistics[2 * row], inverse = a.statistics[2 * row + 1];
    const HiddenRow mask = chance ? hidden_row(a.dropout, a.packing, row) : HiddenRow{};
    float* const dsum = a.workspace + row * columns;
    float total = 0, along = 0;
    for_columns<N>(columns, [&](std::int64_t c) {
      float g[N], hat[N], weight[N];
      load(g, a.dy.row(row) + c), load(hat, a.sum.row(row) + c), load(weight, a.norm.weight + c);
      if (chance) drop(g, a.dropout, mask, c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const std::int64_t at = slot<N>(c) + i * kWarpSize;
        hat[i] = (hat[i] - mean) * inverse;
        own[at] += g[i] * hat[i], own[room + at] += g[i];
        g[i] *= weight[i];
        total += g[i], along += g[i] * hat[i];
      }
      store(g, dsum + c);
    });
    const float mean_g = warp_sum(total) / static_cast<float>(columns), mean_along = warp_sum(along) / static_cast<float>(columns);
    for_columns<N>(columns, [&](std::int64_t c) {
      float g[N], hat[N];
      load(g, dsum + c), load(hat, a.sum.row(row) + c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        g[i] = inverse * (g[i] - mean_g - (hat[i] - mean) * inverse * mean_along);
        own[2 * room + slot<N>(c) + i * kWarpSize] += g[i];
      }
      store(g, dsum + c);
    });
  }
  __syncthreads();
  put_partials<N, kWarps>(shared, columns, partials + static_cast<std::int64_t>(blockIdx.x) * 3 * columns);
}

// table_gradient_kernel: a warp adds up 32 columns of 128 rows in the order of their ids. An id belongs to the chunk in which its run
// begins; what a later chunk holds of it waits in `carried`.
// in   dsum (T, C), ids (T), by_id (T)      in and out  dtable (V, C)      out  carried (T / 128, C)
// grid (T / 128, C / 32)   block 32   shared none
__global__ void __launch_bounds__(kWarpSize)
    table_gradient_kernel(const float* dsum, const std::int32_t* ids, const std::int32_t* by_id, std::int64_t tokens, std::int64_t columns,
                          float* dtable, float* carried) {
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kRows, end = begin + kRows < tokens ? begin + kRows : tokens;
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.y) * kWarpSize + lane_of_warp();
  if (c >= columns) return;
  const std::int32_t before = begin > 0 ? ids[by_id[begin - 1]] : -1;
  std::int32_t id = ids[by_id[begin]];
  float sum = 0;
  carried[blockIdx.x * columns + c] = 0;
  for (std::int64_t s = begin; s < end; ++s) {
    const std::int32_t row = by_id[s], next = ids[row];
    if (next != id) {
      (id == before ? carried[blockIdx.x * columns + c] : dtable[id * columns + c]) += sum;
      id = next, sum = 0;
    }
    sum += dsum[row * columns + c];
  }
  (id == before ? carried[blockIdx.x * columns + c] : dtable[id * columns + c]) += sum;
}

// carried_gradient_kernel: what the chunks after the first hold of a run goes to its row, in order; the warp of the run's second chunk
// does it for all that follow.
// grid (T / 128, C / 32)   block 32   shared none
__global__ void __launch_bounds__(kWarpSize)
    carried_gradient_kernel(const float* carried, const std::int32_t* ids, const std::int32_t* by_id, std::int64_t tokens,
                            std::int64_t columns, float* dtable) {
  const std::int64_t first = blockIdx.x, c = static_cast<std::int64_t>(blockIdx.y) * kWarpSize + lane_of_warp();
  if (first == 0 || c >= columns) return;
  const auto id_at = [&](std::int64_t sorted) { return ids[by_id[sorted]]; };
  const std::int32_t id = id_at(first * kRows);
  if (id_at(first * kRows - 1) != id) return;                     // no run reaches into this chunk
  if (first > 1 && id_at((first - 1) * kRows - 1) == id) return;  // it reached into the one before already
  float sum = 0;
  for (std::int64_t chunk = first; chunk * kRows < tokens && id_at(chunk * kRows) == id; ++chunk) sum += carried[chunk * columns + c];
  dtable[id * columns + c] += sum;
}

// position_gradient_kernel: a warp adds up 32 columns of one position over the sequences, in order.
// grid (longest, C / 32)   block 32   shared none
__global__ void __launch_bounds__(kWarpSize)
    position_gradient_kernel(const float* dsum, PackingView packing, std::int64_t columns, float* dpositions) {
  const std::int64_t position = blockIdx.x, c = static_cast<std::int64_t>(blockIdx.y) * kWarpSize + lane_of_warp();
  if (c >= columns) return;
  float sum = 0;
  for (std::int64_t b = 0; b < packing.sequences; ++b) {
    const std::int64_t row = packing.offsets[b] + position;
    if (row < packing.offsets[b + 1]) sum += dsum[row * columns + c];
  }
  dpositions[position * columns + c] += sum;
}

template <class T>
void forward(const Queue& queue, const RankEmbeddingForward<T>& a) {
  const bool wide = fits_rows(a.table) && fits_rows(a.positions) && fits_rows(a.sum) && fits_rows(a.y) && fits_vector(a.type) &&
                    fits_vector(a.norm.weight) && fits_vector(a.norm.shift);
  const Grid grid{dim3(static_cast<unsigned>(ceil_div(a.y.rows, kWarps))), dim3(kThreads),
                  static_cast<std::size_t>(kWarps * (wide ? slots<16>(a.y.columns) : slots<1>(a.y.columns))) * sizeof(float)};
  launch("rank_embedding_forward_kernel", wide ? rank_embedding_forward_kernel<16, T> : rank_embedding_forward_kernel<1, T>, grid, queue,
         a);
}

template <class T>
void backward(const Queue& queue, const RankEmbeddingBackward<T>& a) {
  const std::int64_t tokens = a.dy.rows, columns = a.dy.columns, chunks = ceil_div(tokens, kRows);
  if (tokens == 0) return;
  float *const partials = a.workspace + tokens * columns, *const carried = partials + chunks * 3 * columns;
  const bool wide = fits_rows(a.dy) && fits_rows(a.sum) && fits_vector(a.norm.weight) && fits_vector(a.workspace);
  const Grid grid{dim3(static_cast<unsigned>(chunks)), dim3(kThreads),
                  static_cast<std::size_t>(kWarps * 3 * (wide ? slots<16>(columns) : slots<1>(columns))) * sizeof(float)};
  launch("rank_embedding_backward_kernel", wide ? rank_embedding_backward_kernel<16, T> : rank_embedding_backward_kernel<1, T>, grid, queue,
         a, partials);
  add_partials(queue, {partials, chunks, columns}, std::array{a.dweight, a.dshift, a.dtype});
  const auto tiles = static_cast<unsigned>(ceil_div(columns, kWarpSize));
  if (a.dtable) {
    const Grid by_chunk{dim3(static_cast<unsigned>(chunks), tiles), dim3(kWarpSize)};
    launch("table_gradient_kernel", table_gradient_kernel, by_chunk, queue, a.workspace, a.ids, a.by_id, tokens, columns, a.dtable,
           carried);
    launch("carried_gradient_kernel", carried_gradient_kernel, by_chunk, queue, carried, a.ids, a.by_id, tokens, columns, a.dtable);
  }
  if (a.dpositions) {
    const Grid by_position{dim3(static_cast<unsigned>(a.packing.longest), tiles), dim3(kWarpSize)};
    launch("position_gradient_kernel", position_gradient_kernel, by_position, queue, a.workspace, a.packing, columns, a.dpositions);
  }
}

}  // namespace

template <>
void rank_embedding_forward<Device::cuda, float>(Queue queue, const RankEmbeddingForward<float>& a) {
  forward(queue, a);
}
template <>
void rank_embedding_forward<Device::cuda, bf16>(Queue queue, const RankEmbeddingForward<bf16>& a) {
  forward(queue, a);
}
template <>
void rank_embedding_backward<Device::cuda, float>(Queue queue, const RankEmbeddingBackward<float>& a) {
  backward(queue, a);
}
template <>
void rank_embedding_backward<Device::cuda, bf16>(Queue queue, const RankEmbeddingBackward<bf16>& a) {
  backward(queue, a);
}

}  // namespace lc::kernels
