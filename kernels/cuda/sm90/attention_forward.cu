// Attention forward on Hopper: one warp brings keys and values by bulk tensor copies, warpgroups of 64 queries each multiply by wgmma; the
// softmax of one key tile runs while the tensor cores add the values of the tile before (after Shah et al. 2024, FlashAttention-3).
#include "kernels/cuda/sm90/attention.h"
#include "kernels/cuda/sm90/tile.cuh"

namespace lc::cuda::sm90 {
namespace {

using kernels::AttentionForward;

template <int D>
struct Shape {
  static constexpr int kReaders = D == 64 ? 3 : 2;  // warpgroups of 64 queries; one more copies
  static constexpr int kRows = 64 * kReaders, kKeys = 128, kThreads = kWarpgroup * (kReaders + 1), kStages = 2;
  static constexpr int kGiven = D == 64 ? 32 : 24, kTaken = D == 64 ? 160 : 240;  // registers a thread, of 65,536 a multiprocessor
  using Queries = SwizzledTile<kRows, D>;
  using Keys = SwizzledTile<kKeys, D>;
  static constexpr std::size_t kShared =
      kAlignment + Queries::kBytes + 2 * kStages * Keys::kBytes + (4 * kStages + 2) * sizeof(ptx::Barrier);
};
struct Maps {
  ptx::TensorMap q, k, v;
};
template <int kRows>
__host__ __device__ __forceinline__ const kernels::RowBlocks& blocks_of(const kernels::PackingView& packing) {
  static_assert(kRows == 128 || kRows == 192);
  return kRows == 192 ? packing.blocks_of_192 : packing.blocks_of_128;
}

// What both roles see of a block. Key tiles are taken from the last to the first: the one that is not whole comes first.
template <int D>
struct Work {
  using S = Shape<D>;
  Span queries, keys;
  int first, head, tiles;
  bf16* shared;

  __device__ typename S::Queries q() const { return {shared}; }
  __device__ typename S::Keys k(int i) const { return {shared + S::Queries::kElements + i % S::kStages * S::Keys::kElements}; }
  __device__ typename S::Keys v(int i) const { return {k(i).data + S::kStages * S::Keys::kElements}; }
  __device__ ptx::Barrier* barriers() const {
    return reinterpret_cast<ptx::Barrier*>(shared + S::Queries::kElements + 2 * S::kStages * S::Keys::kElements);
  }
  __device__ Ring<S::kStages> ring_k() const { return {barriers(), barriers() + S::kStages}; }
  __device__ Ring<S::kStages> ring_v() const { return {barriers() + 2 * S::kStages, barriers() + 3 * S::kStages}; }
  __device__ ptx::Barrier* q_full() const { return barriers() + 4 * S::kStages; }
  __device__ ptx::Barrier* cut() const { return barriers() + 4 * S::kStages + 1; }  // the first values, before rows behind them are cleared
  __device__ int key_of(int i) const { return (tiles - 1 - i) * S::kKeys; }
  __device__ int readers() const { return min(S::kReaders, (queries.length - first + 63) / 64); }
};

// The copying warp.
template <int D>
__device__ __forceinline__ void bring(const Work<D>& w, const Maps& maps) {
  using S = Shape<D>;
  const bool leader = lane_of_warp() == 0;
  const int column = w.head * D;
  const auto start = [&](const typename S::Keys& to, const ptx::TensorMap& map, int i, ptx::Barrier* full) {
    if (!leader) return;
    ptx::barrier_arrive_expecting(full, S::Keys::kBytes);
    to.copy(map, column, w.keys.first + w.key_of(i), full);
  };
  const auto start_k = [&](int i) {
    w.ring_k().wait_empty(i);
    start(w.k(i), maps.k, i, w.ring_k().full + i % S::kStages);
  };
  if (leader) {
    ptx::barrier_arrive_expecting(w.q_full(), S::Queries::kBytes);
    w.q().copy(maps.q, column, w.queries.first + w.first, w.q_full());
  }
  start_k(0);
  for (int i = 0; i < w.tiles; ++i) {
    if (i + 1 < w.tiles) start_k(i + 1);
    w.ring_v().wait_empty(i);
    const int valid = w.keys.length - w.key_of(i);
    if (valid >= S::kKeys) {
      start(w.v(i), maps.v, i, w.ring_v().full + i % S::kStages);
    } else {  // what lies behind this sequence may not be finite: 0 · NaN is NaN
      start(w.v(i), maps.v, i, w.cut());
      ptx::barrier_wait(w.cut(), 0);
      w.v(i).clear_from(valid);
      ptx::fence_async();
      __syncwarp();
      if (leader) ptx::barrier_arrive(w.ring_v().full + i % S::kStages);
    }
  }
}

// A warpgroup's scores of one key tile become weights before dropout's factor, rounded in p; `shrink` is what earlier tiles lose.
template <bool kDropout, int kKeys>
struct Softmax {
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, scale;  // top before scaling; scale includes log2 e
  KeepStrip keep;

  __device__ __forceinline__ void of_tile(Fragment<kKeys / 8>& s, float (&shrink)[2], int valid, const Dropout& d, const StripPlace& at) {
    const int t = lane_of_warp() % 4;
    if (valid < kKeys) {
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[j][e] = 8 * j + 2 * t + (e & 1) < valid ? s[j][e] : -INFINITY;
      }
    }
    float minus_top[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = top[half];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) highest = fmaxf(highest, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, 2));
      shrink[half] = ptx::exp2((top[half] - highest) * scale);
      top[half] = highest, minus_top[half] = -highest * scale;
      sum[half] *= shrink[half];
    }
#pragma unroll
    for (int strip = 0; strip < kKeys / 64; ++strip) {
      if constexpr (kDropout) draw(keep, d, {at.sequence, at.head, at.first_row, at.first_key + 64 * strip});
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& x = s[8 * strip + j][e];
          const float p = ptx::exp2(fmaf(x, scale, minus_top[e / 2]));
          sum[e / 2] += p;
          x = kDropout && !keep.keeps(j, e) ? 0.0f : p;
        }
      }
    }
  }
};

// One multiplying warpgroup.
template <int D, bool kDropout>
__device__ __forceinline__ void attend(const Work<D>& w, const AttentionForward<bf16>& a, std::int64_t sequence, int group) {
  using S = Shape<D>;
  constexpr int kKeys = S::kKeys;
  const int row = w.first + 64 * group + warp_of_block() % 4 * 16, lane = lane_of_warp();
  const std::uint64_t key = a.queries.keys[sequence];
  Fragment<D / 8> o{};
  Fragment<kKeys / 8> s{};
  std::uint32_t p[kKeys / 16][4];
  float shrink[2];
  Softmax<kDropout, kKeys> softmax;
  softmax.scale = a.scale * kLog2e;
  if constexpr (kDropout) softmax.keep.threshold = keep_threshold(a.dropout, key, w.head, row / 16);
  const auto soften = [&](int i) { softmax.of_tile(s, shrink, w.keys.length - w.key_of(i), a.dropout, {key, w.head, row, w.key_of(i)}); };

  ptx::barrier_wait(w.q_full(), 0);
  w.ring_k().wait_full(0);
  product_of_rows<kKeys, D>(s, w.q(), 64 * group, w.k(0));
  ptx::wgmma_wait<0>();
  ptx::wgmma_done(s);
  w.ring_k().release(0);
  soften(0);
  pack<kKeys>(p, s);
  for (int i = 1; i < w.tiles; ++i) {
    w.ring_k().wait_full(i);
    product_of_rows<kKeys, D>(s, w.q(), 64 * group, w.k(i));
    w.ring_v().wait_full(i - 1);
    add_product<D, kKeys>(o, p, w.v(i - 1));
    ptx::wgmma_wait<1>();
    ptx::wgmma_done(s);
    w.ring_k().release(i);
    soften(i);
    ptx::wgmma_wait<0>();
    ptx::wgmma_done(o);
    w.ring_v().release(i - 1);
    pack<kKeys>(p, s);
#pragma unroll
    for (int j = 0; j < D / 8; ++j) o[j][0] *= shrink[0], o[j][1] *= shrink[0], o[j][2] *= shrink[1], o[j][3] *= shrink[1];
  }
  w.ring_v().wait_full(w.tiles - 1);
  add_product<D, kKeys>(o, p, w.v(w.tiles - 1));
  ptx::wgmma_wait<0>();
  ptx::wgmma_done(o);

  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = warp_sum<4>(softmax.sum[half]);
    factor[half] = keep_scale(a.dropout) / sum;
    const int r = row + lane / 4 + 8 * half;
    if (a.lse && lane % 4 == 0 && r < w.queries.length)
      a.lse[w.head * a.q.rows + w.queries.first + r] = (softmax.top[half] * softmax.scale + log2f(sum)) * kLn2;
  }
  store_rows<D>(head_rows(a.o, w.queries.first, w.head, D), row, w.queries.length, o, factor, kernels::Into::write);
}

// Rows of a sequence that has no keys.
template <int D>
__device__ __forceinline__ void without_keys(const AttentionForward<bf16>& a, const Span& queries, int first, int head) {
  for (int i = static_cast<int>(threadIdx.x); i < Shape<D>::kRows * (D / 8); i += Shape<D>::kThreads) {
    const int row = first + i / (D / 8);
    if (row >= queries.length) return;
    *reinterpret_cast<Vector<std::uint32_t, 4>*>(a.o.row(queries.first + row) + head * D + i % (D / 8) * 8) = {};
    if (a.lse && i % (D / 8) == 0) a.lse[head * a.q.rows + queries.first + row] = -INFINITY;
  }
}

// attention_forward_sm90_kernel: one block computes 64 queries a warpgroup of one head of one sequence.
// in   q, k, v (tokens, H·D) bf16, packings      out  o (tokens, H·D), lse (H, tokens) float
// grid (blocks of queries, H)   block 128·(warpgroups + 1)   shared Shape<D>::kShared
// moves q + o once, k + v once per query tile; deterministic; no keys: o = 0, lse = −∞
template <int D, bool kDropout>
__global__ void __launch_bounds__(Shape<D>::kThreads, 1)
    attention_forward_sm90_kernel(const AttentionForward<bf16> a, const __grid_constant__ Maps maps) {
  using S = Shape<D>;
  const kernels::Strip block = blocks_of<S::kRows>(a.queries).all[blockIdx.x];
  const std::int64_t sequence = block.sequence;
  Work<D> w;
  w.first = block.first_row, w.head = static_cast<int>(blockIdx.y);
  w.queries = span_of(block), w.keys = span_of(a.keys, keys_of(a.queries, sequence));
  w.tiles = (w.keys.length + S::kKeys - 1) / S::kKeys, w.shared = aligned_shared();
  if (w.tiles == 0) return without_keys<D>(a, w.queries, w.first, w.head);
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;  // −1 copies
  if (threadIdx.x == 0) {
    w.ring_k().init(4 * w.readers()), w.ring_v().init(4 * w.readers());
    ptx::barrier_init(w.q_full(), 1), ptx::barrier_init(w.cut(), 1);
    ptx::barrier_init_done();
  }
  __syncthreads();
  if (group < 0) {
    ptx::registers_give<S::kGiven>();
    if (threadIdx.x < kWarpSize) bring(w, maps);
  } else {
    ptx::registers_take<S::kTaken>();
    if (group < w.readers()) attend<D, kDropout>(w, a, sequence, group);
  }
}

template <int D>
bool run(const Queue& queue, const AttentionForward<bf16>& a) {
  using S = Shape<D>;
  const Grid grid{dim3(static_cast<unsigned>(blocks_of<S::kRows>(a.queries).count), static_cast<unsigned>(a.heads)), dim3(S::kThreads),
                  S::kShared};
  if (grid.blocks.x == 0) return true;
  const Maps maps{map_of(a.q, S::kRows), map_of(a.k, S::kKeys), map_of(a.v, S::kKeys)};
  launch("attention_forward_sm90_kernel",
         a.dropout.rate > 0 ? attention_forward_sm90_kernel<D, true> : attention_forward_sm90_kernel<D, false>, grid, queue, a, maps);
  return true;
}

}  // namespace

bool attention_forward(const Queue& queue, const AttentionForward<bf16>& a) {
  if (!chosen(queue) || a.k.rows == 0) return false;
  const std::int64_t width = a.q.columns / a.heads;
  return width == 64 ? run<64>(queue, a) : width == 128 && run<128>(queue, a);
}

}  // namespace lc::cuda::sm90
