// Attention backward in two kernels, without atomics: every gradient row has one owner, who adds in a fixed order. Weights are computed
// again from the saved log-sum-exp; both kernels hold the scores as forward does, queries as rows, so the mask lies the same way.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/sm90/attention.h"

namespace lc::kernels {
namespace {

using namespace cuda;

// attention_delta_kernel: one warp per query and head.
// in   o, d_o (tokens, H·D)      out  delta (H, tokens) float = Σ o · d_o
// grid (tokens / 4, H)   block 128   shared none
template <int D, class T>
__global__ void __launch_bounds__(kAttentionThreads) attention_delta_kernel(AttentionBackward<T> a) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kAttentionWarps + warp_of_block();
  if (token >= a.q.rows) return;
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_warp();
  float sum = 0;
#pragma unroll
  for (int c = lane; c < D; c += kWarpSize) sum += to_float(a.o.row(token)[head * D + c]) * to_float(a.d_o.row(token)[head * D + c]);
  sum = warp_sum(sum);
  if (lane == 0) a.workspace[head * a.q.rows + token] = sum;
}

// attention_delta_rows_kernel: the same for rows that are aligned to 16 bytes; a lane has 8 columns.
// grid (tokens · H · D / 8 / 128)   block 128   shared none
template <int D>
__global__ void __launch_bounds__(kAttentionThreads) attention_delta_rows_kernel(AttentionBackward<bf16> a) {
  constexpr int kLanes = D / 8;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kAttentionThreads + threadIdx.x, head_row = i / kLanes;
  const std::int64_t token = head_row / a.heads, head = head_row % a.heads;
  float sum = 0;
  if (token < a.q.rows) {
    float o[8], d_o[8];
    const std::int64_t column = head * D + i % kLanes * 8;
    load(o, a.o.row(token) + column), load(d_o, a.d_o.row(token) + column);
#pragma unroll
    for (int c = 0; c < 8; ++c) sum += o[c] * d_o[c];
  }
  sum = warp_sum<kLanes>(sum);
  if (token < a.q.rows && i % kLanes == 0) a.workspace[head * a.q.rows + token] = sum;
}

// P (a weight before dropout) and dS of the warp's 16 queries × 64 keys, from scores and products dO · v.
// row_lse (times log2 e) and row_delta are those of the lane's two rows; queries and keys outside give 0, and kWhole says there are none.
template <bool kDropout, bool kWhole>
__device__ __forceinline__ void gradients_of_scores(Fragment<8>& s, Fragment<8>& ds, const KeepStrip& keep, const float (&row_lse)[2],
                                                    const float (&row_delta)[2], const bool (&row_valid)[2], int valid_keys, float scale,
                                                    float kept_scale) {
  const int t = lane_of_warp() % 4;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int half = e / 2;
      const bool valid = kWhole || (8 * j + 2 * t + (e & 1) < valid_keys && row_valid[half]);
      const float p = valid ? ptx::exp2(s[j][e] * scale - row_lse[half]) : 0.0f;
      const float m = !kDropout ? 1.0f : keep.keeps(j, e) ? kept_scale : 0.0f;
      ds[j][e] = p * (ds[j][e] * m - row_delta[half]);
      s[j][e] = p * m;
    }
  }
}

// attention_key_gradient_kernel: one block computes dk and dv of 64 keys of one head, over all query sequences that read them, in order.
// in   q, k, v, d_o (tokens, H·D) bf16, lse, delta (H, tokens)      out  dk, dv (tokens, H·D)
// grid (key strips / 4, H)   block 128 = 4 warps: 16 queries each for the scores, then 16 keys each for the gradients
// shared (2 + 2·2)·64·D·2 + 2·64·64·2 bytes
// deterministic; keys that nobody reads get 0
template <int D, bool kDropout>
__global__ void __launch_bounds__(kAttentionThreads) attention_key_gradient_kernel(AttentionBackward<bf16> a) {
  const kernels::Strip place = a.keys.strips.all[std::int64_t{kAttentionWarps} * blockIdx.x];
  if (place.sequence < 0) return;
  const int first = place.first_row, head = static_cast<int>(blockIdx.y);
  const Span keys = span_of(a.keys, place.sequence);
  const int own = warp_of_block() * 16, g = lane_of_warp() / 4;
  bf16* const shared = ptx::dynamic_shared<bf16>();
  constexpr int kElements = HeadTile<D>::kElements;
  const HeadTile<D> k{shared}, v{shared + kElements};
  const auto stage_q = [&](int i) { return HeadTile<D>{shared + (2 + 2 * (i & 1)) * kElements}; };
  const auto stage_do = [&](int i) { return HeadTile<D>{shared + (3 + 2 * (i & 1)) * kElements}; };
  const ScoreTile weights{shared + 6 * kElements}, d_scores{shared + 6 * kElements + ScoreTile::kElements};
  const auto k_rows = head_rows(a.k, keys.first, head, D), v_rows = head_rows(a.v, keys.first, head, D);
  k.template load<kAttentionThreads>(k_rows.row(first), k_rows.stride, keys.length - first);
  v.template load<kAttentionThreads>(v_rows.row(first), v_rows.stride, keys.length - first);

  Fragment<D / 8> dk{}, dv{};
  const Readers readers = readers_of(a.queries.strips, place.sequence);
  const kernels::Strip* const begin = readers.begin + warp_of_block();
  const int tiles = (static_cast<int>(readers.end - readers.begin) + kAttentionWarps - 1) / kAttentionWarps;
  const auto load = [&](int i, const kernels::Strip& rows) {
    const auto q_rows = head_rows(a.q, rows.token, head, D), do_rows = head_rows(a.d_o, rows.token, head, D);
    Tile<16, D>{stage_q(i).data + own * D}.load_by_warp(q_rows.row(0), q_rows.stride, rows.rows);
    Tile<16, D>{stage_do(i).data + own * D}.load_by_warp(do_rows.row(0), do_rows.stride, rows.rows);
  };
  kernels::Strip rows, next;
  if (tiles > 0) load(0, rows = begin[0]);
  if (tiles > 1) next = begin[kAttentionWarps];
  ptx::copy_async_commit();
  for (int i = 0; i < tiles; ++i, rows = next, next = i + 1 < tiles ? begin[(i + 1) * kAttentionWarps] : next) {
    if (i + 1 < tiles) load(i + 1, next);
    ptx::copy_async_commit();
    float lse[2] = {0, 0}, delta[2] = {0, 0};
    bool valid[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = g + 8 * half;
      valid[half] = row < rows.rows;
      const std::int64_t at = head * a.q.rows + rows.token + row;
      if (valid[half]) lse[half] = a.lse[at] * kLog2e, delta[half] = a.workspace[at];
    }
    ptx::copy_async_wait<1>();
    __syncthreads();
    Fragment<8> p, ds;
    product_of_rows<D>(p, stage_q(i), own, k);
    product_of_rows<D>(ds, stage_do(i), own, v);
    KeepStrip keep;
    if constexpr (kDropout) {
      const std::uint64_t key = a.queries.keys[max(rows.sequence, 0)];
      keep.threshold = keep_threshold(a.dropout, key, head, rows.first_row / 16);
      draw(keep, a.dropout, {key, head, rows.first_row, first});
    }
    const bool whole = rows.rows == 16 && first + kTile <= keys.length;
    if (whole)
      gradients_of_scores<kDropout, true>(p, ds, keep, lse, delta, valid, kTile, a.scale * kLog2e, keep_scale(a.dropout));
    else
      gradients_of_scores<kDropout, false>(p, ds, keep, lse, delta, valid, keys.length - first, a.scale * kLog2e, keep_scale(a.dropout));
    put_fragments(weights, own, p);
    put_fragments(d_scores, own, ds);
    __syncthreads();
    add_transposed_product<D>(dv, weights, own, stage_do(i));
    add_transposed_product<D>(dk, d_scores, own, stage_q(i));
    __syncthreads();
  }
  ptx::copy_async_wait<0>();
  const float by_scale[2] = {a.scale, a.scale}, by_one[2] = {1, 1};
  if (a.dk) store_rows<D>(head_rows(a.dk.to, keys.first, head, D), first + own, keys.length, dk, by_scale, a.dk.into);
  if (a.dv) store_rows<D>(head_rows(a.dv.to, keys.first, head, D), first + own, keys.length, dv, by_one, a.dv.into);
}

// attention_query_gradient_kernel: one block computes dq of 16 queries a warp of one head; they read the same keys.
// in   q, k, v, d_o (tokens, H·D) bf16, lse, delta (H, tokens)      out  dq (tokens, H·D)
// grid (strips / 4, H)   block 128 = 4 warps of 16 rows   shared (2 + 2·2)·64·D·2 bytes
// deterministic: key tiles in order; no keys: dq = 0
template <int D, bool kDropout>
__global__ void __launch_bounds__(kAttentionThreads) attention_query_gradient_kernel(AttentionBackward<bf16> a) {
  const kernels::Strip* const strips = a.queries.strips.all + std::int64_t{kAttentionWarps} * blockIdx.x;
  if (strips[0].sequence < 0) return;
  const kernels::Strip rows = strips[warp_of_block()];  // a warp without rows shares in what its block loads
  const Span keys = span_of(a.keys, keys_of(a.queries, strips[0].sequence));
  const int head = static_cast<int>(blockIdx.y), own = warp_of_block() * 16, g = lane_of_warp() / 4;
  const std::uint64_t key = a.queries.keys[max(rows.sequence, 0)];
  bf16* const shared = ptx::dynamic_shared<bf16>();
  constexpr int kElements = HeadTile<D>::kElements;
  const Tile<16, D> q{shared + own * D}, d_o{shared + kElements + own * D};
  const auto stage_k = [&](int i) { return HeadTile<D>{shared + (2 + 2 * (i & 1)) * kElements}; };
  const auto stage_v = [&](int i) { return HeadTile<D>{shared + (3 + 2 * (i & 1)) * kElements}; };
  const auto q_rows = head_rows(a.q, rows.token, head, D), do_rows = head_rows(a.d_o, rows.token, head, D);
  const auto k_rows = head_rows(a.k, keys.first, head, D), v_rows = head_rows(a.v, keys.first, head, D);
  const auto load = [&](int i) {
    stage_k(i).template load<kAttentionThreads>(k_rows.row(i * kTile), k_rows.stride, keys.length - i * kTile);
    stage_v(i).template load<kAttentionThreads>(v_rows.row(i * kTile), v_rows.stride, keys.length - i * kTile);
  };
  const int tiles = (keys.length + kTile - 1) / kTile;
  q.load_by_warp(q_rows.row(0), q_rows.stride, rows.rows);
  d_o.load_by_warp(do_rows.row(0), do_rows.stride, rows.rows);
  if (tiles > 0) load(0);
  ptx::copy_async_commit();
  float lse[2] = {0, 0}, delta[2] = {0, 0};
  bool valid[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
    valid[half] = row < rows.rows;
    const std::int64_t at = head * a.q.rows + rows.token + row;
    if (valid[half]) lse[half] = a.lse[at] * kLog2e, delta[half] = a.workspace[at];
  }
  Fragment<D / 8> dq{};
  KeepStrip keep;
  if constexpr (kDropout) keep.threshold = keep_threshold(a.dropout, key, head, rows.first_row / 16);
  for (int i = 0; i < tiles; ++i) {
    if (i + 1 < tiles) load(i + 1);
    ptx::copy_async_commit();
    ptx::copy_async_wait<1>();
    __syncthreads();
    Fragment<8> s, ds;
    product_of_rows<D>(s, q, 0, stage_k(i));
    product_of_rows<D>(ds, d_o, 0, stage_v(i));
    if constexpr (kDropout) draw(keep, a.dropout, {key, head, rows.first_row, i * kTile});
    if (rows.rows == 16 && (i + 1) * kTile <= keys.length) {
      gradients_of_scores<kDropout, true>(s, ds, keep, lse, delta, valid, kTile, a.scale * kLog2e, keep_scale(a.dropout));
    } else {
      gradients_of_scores<kDropout, false>(s, ds, keep, lse, delta, valid, keys.length - i * kTile, a.scale * kLog2e,
                                           keep_scale(a.dropout));
    }
    add_product<D>(dq, ds, stage_k(i));
    __syncthreads();
  }
  ptx::copy_async_wait<0>();
  const float by_scale[2] = {a.scale, a.scale};
  store_rows<D>(head_rows(a.dq.to, rows.token, head, D), 0, rows.rows, dq, by_scale, a.dq.into);
}

// ---- float, and rows that are not aligned: one warp a row of a gradient, a lane D/32 of its columns

template <int D, class T>
struct Columns {  // a lane's columns of one row of one head
  static constexpr int kEach = D / kWarpSize;
  float of[kEach];
  __device__ __forceinline__ void read(const T* row) {
#pragma unroll
    for (int c = 0; c < kEach; ++c) of[c] = to_float(row[lane_of_warp() + c * kWarpSize]);
  }
  __device__ __forceinline__ float dot(const Columns& other) const {
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kEach; ++c) sum += of[c] * other.of[c];
    return warp_sum(sum);
  }
  __device__ __forceinline__ void add(float factor, const Columns& other) {
#pragma unroll
    for (int c = 0; c < kEach; ++c) of[c] += factor * other.of[c];
  }
  __device__ __forceinline__ void store(T* row, Into into, float factor) const {
#pragma unroll
    for (int c = 0; c < kEach; ++c) {
      T* const at = row + lane_of_warp() + c * kWarpSize;
      *at = from_float<T>(into == Into::add ? to_float(*at) + of[c] * factor : of[c] * factor);
    }
  }
};

// The weight of one query and key before dropout, and what dropout makes of 1.
template <int D, class T>
struct Pair {
  float p, m;
  __device__ __forceinline__ Pair(const AttentionBackward<T>& a, const Columns<D, T>& q, const Columns<D, T>& k, int head,
                                  std::int64_t token, std::int64_t sequence, int key) {
    const int row = static_cast<int>(token - a.queries.offsets[sequence]);
    p = expf(q.dot(k) * a.scale - a.lse[head * a.q.rows + token]);
    m = a.dropout.rate <= 0 ? 1.0f : keeps(a.dropout, a.queries.keys[sequence], head, row, key) ? keep_scale(a.dropout) : 0.0f;
  }
};

// attention_query_gradient_plain_kernel: one warp computes dq of one query of one head.
// grid (query tokens / 4, H)   block 128   shared none
template <int D, class T>
__global__ void __launch_bounds__(kAttentionThreads) attention_query_gradient_plain_kernel(AttentionBackward<T> a) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kAttentionWarps + warp_of_block();
  if (token >= a.q.rows) return;
  const int at = static_cast<int>(blockIdx.y) * D, head = static_cast<int>(blockIdx.y);
  const std::int64_t sequence = a.queries.sequence_of[token];
  const Span keys = span_of(a.keys, keys_of(a.queries, sequence));
  Columns<D, T> q, d_o, k, v, dq{};
  q.read(a.q.row(token) + at), d_o.read(a.d_o.row(token) + at);
  const float delta = a.workspace[head * a.q.rows + token];
  for (int key = 0; key < keys.length; ++key) {
    k.read(a.k.row(keys.first + key) + at), v.read(a.v.row(keys.first + key) + at);
    const Pair<D, T> w(a, q, k, head, token, sequence, key);
    dq.add(w.p * (d_o.dot(v) * w.m - delta), k);
  }
  dq.store(a.dq.to.row(token) + at, a.dq.into, a.scale);
}

// attention_key_gradient_plain_kernel: one warp computes dk and dv of one key of one head, over all queries that read it, in order.
// grid (key tokens / 4, H)   block 128   shared none
template <int D, class T>
__global__ void __launch_bounds__(kAttentionThreads) attention_key_gradient_plain_kernel(AttentionBackward<T> a) {
  const std::int64_t key_token = static_cast<std::int64_t>(blockIdx.x) * kAttentionWarps + warp_of_block();
  if (key_token >= a.k.rows) return;
  const int at = static_cast<int>(blockIdx.y) * D, head = static_cast<int>(blockIdx.y);
  const std::int64_t key_sequence = a.keys.sequence_of[key_token];
  const int key = static_cast<int>(key_token - a.keys.offsets[key_sequence]);
  Columns<D, T> q, d_o, k, v, dk{}, dv{};
  k.read(a.k.row(key_token) + at), v.read(a.v.row(key_token) + at);
  const Readers readers = readers_of(a.queries.strips, key_sequence);
  for (const kernels::Strip* strip = readers.begin; strip != readers.end; ++strip) {
    for (std::int64_t token = strip->token; token < strip->token + strip->rows; ++token) {
      q.read(a.q.row(token) + at), d_o.read(a.d_o.row(token) + at);
      const Pair<D, T> w(a, q, k, head, token, strip->sequence, key);
      dv.add(w.p * w.m, d_o);
      dk.add(w.p * (d_o.dot(v) * w.m - a.workspace[head * a.q.rows + token]), q);
    }
  }
  if (a.dk) dk.store(a.dk.to.row(key_token) + at, a.dk.into, a.scale);
  if (a.dv) dv.store(a.dv.to.row(key_token) + at, a.dv.into, 1.0f);
}

Grid by_rows(std::int64_t rows, int heads) {
  return {dim3(static_cast<unsigned>(ceil_div(rows, kAttentionWarps)), static_cast<unsigned>(heads)), dim3(kAttentionThreads)};
}
Grid by_strips(const PackingView& packing, int heads, std::size_t shared) {
  return {dim3(static_cast<unsigned>(packing.strips.count / kAttentionWarps), static_cast<unsigned>(heads)), dim3(kAttentionThreads),
          shared};
}

template <int D, bool kDropout>
void run_tiles(const Queue& queue, const AttentionBackward<bf16>& a) {
  constexpr std::size_t kTiles = 6 * HeadTile<D>::kBytes;
  if (a.dk || a.dv) {
    launch("attention_key_gradient_kernel", attention_key_gradient_kernel<D, kDropout>,
           by_strips(a.keys, a.heads, kTiles + 2 * ScoreTile::kBytes), queue, a);
  }
  if (a.dq) {
    launch("attention_query_gradient_kernel", attention_query_gradient_kernel<D, kDropout>, by_strips(a.queries, a.heads, kTiles), queue,
           a);
  }
}

template <int D, class T>
void start_delta(const Queue& queue, const AttentionBackward<T>& a) {
  if constexpr (dtype_of<T> == DType::bf16) {
    if (fits_tiles(a.o) && fits_tiles(a.d_o)) {
      const Grid grid{dim3(static_cast<unsigned>(ceil_div(a.q.rows * a.heads * (D / 8), kAttentionThreads))), dim3(kAttentionThreads)};
      return launch("attention_delta_rows_kernel", attention_delta_rows_kernel<D>, grid, queue, a);
    }
  }
  launch("attention_delta_kernel", attention_delta_kernel<D, T>, by_rows(a.q.rows, a.heads), queue, a);
}

template <int D, class T>
void run(const Queue& queue, const AttentionBackward<T>& a) {
  start_delta<D>(queue, a);
  if constexpr (dtype_of<T> == DType::bf16) {
    const bool aligned = fits_tiles(a.q) && fits_tiles(a.k) && fits_tiles(a.v) && fits_tiles(a.d_o) && fits_tiles(a.dq.to) &&
                         fits_tiles(a.dk.to) && fits_tiles(a.dv.to);
    if (aligned && sm90::attention_backward(queue, a)) return;
    if (aligned) return a.dropout.rate > 0 ? run_tiles<D, true>(queue, a) : run_tiles<D, false>(queue, a);
  }
  if (a.dq)
    launch("attention_query_gradient_plain_kernel", attention_query_gradient_plain_kernel<D, T>, by_rows(a.q.rows, a.heads), queue, a);
  if (a.dk || a.dv)
    launch("attention_key_gradient_plain_kernel", attention_key_gradient_plain_kernel<D, T>, by_rows(a.k.rows, a.heads), queue, a);
}

template <class T>
void backward(const Queue& queue, const AttentionBackward<T>& a) {
  switch (a.q.columns / a.heads) {
    case 32:
      return run<32>(queue, a);
    case 64:
      return run<64>(queue, a);
    case 128:
      return run<128>(queue, a);
    default:
      throw std::runtime_error("attention: wanted heads 32, 64 or 128 wide, got " + std::to_string(a.q.columns / a.heads));
  }
}

}  // namespace

template <>
void attention_backward<Device::cuda, float>(Queue queue, const AttentionBackward<float>& a) {
  backward(queue, a);
}
template <>
void attention_backward<Device::cuda, bf16>(Queue queue, const AttentionBackward<bf16>& a) {
  backward(queue, a);
}

}  // namespace lc::kernels
