// Attention forward: tiles of 64 queries × 64 keys on the tensor cores with a running softmax (Dao et al. 2022, FlashAttention); for float,
// and for rows that are not aligned to 16 bytes, one warp a query.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/sm90/attention.h"

namespace lc::kernels {
namespace {

using namespace cuda;

// attention_forward_kernel: one block computes 16 queries a warp of one head; they read the same keys, which the block loads once.
// in   q, k, v (tokens, H·D) bf16, packings      out  o (tokens, H·D), lse (H, tokens) float
// grid (strips / kWarps, H)   block 32·kWarps   shared (16·kWarps + 2·2·64)·D·2 bytes
// moves q + o once, k + v once per query tile, the next key tile while this one computes
// deterministic; lengths need not be multiples of 64; no keys: o = 0, lse = −∞
template <int D, bool kDropout, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarpSize, D > 64        ? 1
                                                     : kWarps == 8 ? 2
                                                                   : 3) attention_forward_kernel(AttentionForward<bf16> a) {
  constexpr int kThreads = kWarps * kWarpSize;
  const kernels::Strip* const strips = a.queries.strips.all + std::int64_t{kWarps} * blockIdx.x;
  if (strips[0].sequence < 0) return;
  const Span k_span = span_of(a.keys, keys_of(a.queries, strips[0].sequence));
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_warp(), g = lane / 4, t = lane % 4;
  bf16* const shared = ptx::dynamic_shared<bf16>();
  const Tile<16, D> q{shared + warp_of_block() * Tile<16, D>::kElements};
  bf16* const stages = shared + kWarps * Tile<16, D>::kElements;
  const auto stage_k = [&](int i) { return HeadTile<D>{stages + 2 * (i & 1) * HeadTile<D>::kElements}; };
  const auto stage_v = [&](int i) { return HeadTile<D>{stages + (2 * (i & 1) + 1) * HeadTile<D>::kElements}; };
  const auto k_rows = head_rows(a.k, k_span.first, head, D);
  const auto v_rows = head_rows(a.v, k_span.first, head, D);
  const auto load_keys = [&](int i) {
    stage_k(i).template load<kThreads>(k_rows.row(i * kTile), k_rows.stride, k_span.length - i * kTile);
    stage_v(i).template load<kThreads>(v_rows.row(i * kTile), v_rows.stride, k_span.length - i * kTile);
  };

  const int tiles = (k_span.length + kTile - 1) / kTile;
  std::uint64_t key = 0;
  int first_row = 0;
  {
    const kernels::Strip own = strips[warp_of_block()];  // a warp without rows shares in what its block loads
    q.load_by_warp(head_rows(a.q, own.token, head, D).row(0), a.q.stride, own.rows);
    if constexpr (kDropout) key = a.queries.keys[max(own.sequence, 0)], first_row = own.first_row;
  }
  if (tiles > 0) load_keys(0);
  ptx::copy_async_commit();

  Fragment<D / 8> o{};
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // top before scaling
  const float scale = a.scale * kLog2e;
  std::uint32_t threshold = 0;
  if constexpr (kDropout) threshold = keep_threshold(a.dropout, key, head, first_row / 16);
  const auto attend = [&](int i, auto cut) {
    const bool more = kDropout ? i + 1 < tiles : !cut;
    if (more) load_keys(i + 1);
    ptx::copy_async_commit();
    ptx::copy_async_wait<1>();
    __syncthreads();
    Fragment<8> s;
    product_of_rows<D>(s, q, 0, stage_k(i));
    if constexpr (cut) {
      const int valid = k_span.length - i * kTile - 2 * t;  // keys of this tile from the lane's first column on
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[j][e] = 8 * j + (e & 1) < valid ? s[j][e] : -INFINITY;
      }
    }
    float shrink[2], minus_top[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = top[half];
#pragma unroll
      for (int j = 0; j < 8; ++j) highest = fmaxf(highest, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, 2));
      shrink[half] = ptx::exp2((top[half] - highest) * scale);
      top[half] = highest, minus_top[half] = -highest * scale;
      sum[half] *= shrink[half];
    }
#pragma unroll  // without it the fragments lie in local memory: no spill, but a stack frame
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[j][e] = ptx::exp2(fmaf(s[j][e], scale, minus_top[e / 2]));
        sum[e / 2] += s[j][e];
      }
    }
#pragma unroll
    for (int j = 0; j < D / 8; ++j) o[j][0] *= shrink[0], o[j][1] *= shrink[0], o[j][2] *= shrink[1], o[j][3] *= shrink[1];
    if constexpr (kDropout) {
      const BytesBelow below(threshold);
      Philox bits;  // of 32 keys
      add_product<D>(o, s, stage_v(i), [&](std::uint32_t(&weights)[4], int j) {
        if (j % 4 == 0)
          bits = attention_bits(a.dropout, key, head, first_row / 16, attention_column_block_and_lane(i * kTile / 32 + j / 4, lane));
        drop_pairs(weights[0], weights[1], below(bits.word[j % 4]));
        drop_pairs(weights[2], weights[3], below(bits.word[j % 4 + 1]));
      });
    } else {
      add_product<D>(o, s, stage_v(i));
    }
    if (kDropout || more) __syncthreads();
  };
  if constexpr (kDropout) {  // every tile is cut: a second copy of the body would cost the registers of a second block
    for (int i = 0; i < tiles; ++i) attend(i, std::true_type{});
  } else {
    for (int i = 0; i + 1 < tiles; ++i) attend(i, std::false_type{});
    if (tiles > 0) attend(tiles - 1, std::true_type{});
  }

  const kernels::Strip to =
      a.queries.strips.all[kWarps * blockIdx.x + warp_of_block()];  // read again: to keep it would cost the registers of a block
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] = warp_sum<4>(sum[half]);
    factor[half] = tiles > 0 ? keep_scale(a.dropout) / sum[half] : 0.0f;
    const int r = g + 8 * half;
    if (a.lse && t == 0 && r < to.rows) a.lse[head * a.q.rows + to.token + r] = (top[half] * scale + log2f(sum[half])) * kLn2;
  }
  store_rows<D>(head_rows(a.o, to.token, head, D), 0, to.rows, o, factor, Into::write);
}

// attention_forward_plain_kernel: one warp computes one query of one head, a lane D/32 of its columns.
// in   q, k, v (tokens, H·D), packings      out  o (tokens, H·D), lse (H, tokens) float
// grid (tokens / 4, H)   block 128   shared none
// moves k + v once per query
template <int D, class T>
__global__ void __launch_bounds__(kAttentionThreads) attention_forward_plain_kernel(AttentionForward<T> a) {
  constexpr int kEach = D / kWarpSize;
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kAttentionWarps + warp_of_block();
  if (token >= a.q.rows) return;
  const std::int64_t sequence = a.queries.sequence_of[token];
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_warp();
  const int row = static_cast<int>(token - a.queries.offsets[sequence]);
  const Span keys = span_of(a.keys, keys_of(a.queries, sequence));
  const auto k_rows = head_rows(a.k, keys.first, head, D), v_rows = head_rows(a.v, keys.first, head, D);
  const T* const q = a.q.row(token) + head * D + lane;
  float query[kEach], o[kEach] = {}, top = -INFINITY, sum = 0;
#pragma unroll
  for (int c = 0; c < kEach; ++c) query[c] = to_float(q[c * kWarpSize]) * a.scale;
  for (int key = 0; key < keys.length; ++key) {
    float score = 0;
#pragma unroll
    for (int c = 0; c < kEach; ++c) score += query[c] * to_float(k_rows.row(key)[lane + c * kWarpSize]);
    score = warp_sum(score);
    const float highest = fmaxf(top, score), shrink = expf(top - highest), p = expf(score - highest);
    const float kept = a.dropout.rate > 0 && !keeps(a.dropout, a.queries.keys[sequence], head, row, key) ? 0.0f : p;
    top = highest, sum = sum * shrink + p;
#pragma unroll
    for (int c = 0; c < kEach; ++c) o[c] = o[c] * shrink + kept * to_float(v_rows.row(key)[lane + c * kWarpSize]);
  }
  const float factor = sum == 0 ? 0.0f : keep_scale(a.dropout) / sum;
  T* const to = a.o.row(token) + head * D + lane;
#pragma unroll
  for (int c = 0; c < kEach; ++c) to[c * kWarpSize] = from_float<T>(o[c] * factor);
  if (a.lse && lane == 0) a.lse[head * a.q.rows + token] = top + logf(sum);
}

template <int D, int kWarps>
void run_tiles(const Queue& queue, const AttentionForward<bf16>& a) {
  const Grid grid{dim3(static_cast<unsigned>(a.queries.strips.count / kWarps), static_cast<unsigned>(a.heads)), dim3(kWarps * kWarpSize),
                  Tile<16 * kWarps, D>::kBytes + 4 * HeadTile<D>::kBytes};
  launch("attention_forward_kernel",
         a.dropout.rate > 0 ? attention_forward_kernel<D, true, kWarps> : attention_forward_kernel<D, false, kWarps>, grid, queue, a);
}

template <int D, class T>
void run(const Queue& queue, const AttentionForward<T>& a) {
  if constexpr (dtype_of<T> == DType::bf16) {
    const bool aligned = fits_tiles(a.q) && fits_tiles(a.k) && fits_tiles(a.v) && fits_tiles(a.o);
    const bool small = a.queries.strips.count / 8 * a.heads < 2 * multiprocessors(queue);  // then smaller tiles fill the device better
    if (aligned && sm90::attention_forward(queue, a)) return;
    if (aligned) return small ? run_tiles<D, 4>(queue, a) : run_tiles<D, 8>(queue, a);
  }
  const Grid grid{dim3(static_cast<unsigned>(ceil_div(a.q.rows, kAttentionWarps)), static_cast<unsigned>(a.heads)),
                  dim3(kAttentionThreads)};
  launch("attention_forward_plain_kernel", attention_forward_plain_kernel<D, T>, grid, queue, a);
}

template <class T>
void forward(const Queue& queue, const AttentionForward<T>& a) {
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
void attention_forward<Device::cuda, float>(Queue queue, const AttentionForward<float>& a) {
  forward(queue, a);
}
template <>
void attention_forward<Device::cuda, bf16>(Queue queue, const AttentionForward<bf16>& a) {
  forward(queue, a);
}

}  // namespace lc::kernels
