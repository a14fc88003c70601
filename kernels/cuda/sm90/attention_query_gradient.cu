// dq on Hopper: queries stay, key tiles pass. Scores and their gradients stay in registers, queries as rows.
#include "kernels/cuda/kept_bits.cuh"
#include "kernels/cuda/sm90/attention.h"
#include "kernels/cuda/sm90/tile.cuh"

namespace lc::cuda::sm90 {
namespace {

using kernels::AttentionBackward;

constexpr int D = 64;                                                                       // the width of a head
constexpr int kReaders = 2, kThreads = kWarpgroup * (kReaders + 1), kRows = 64 * kReaders;  // queries of a block; one warpgroup copies
constexpr int kGiven = 40, kTaken = 232;                                                    // registers a thread

struct Maps {
  ptx::TensorMap q, k, v, d_o;
};
struct QueryNumbers {  // of a block's queries; of rows outside such that their weights are 0
  float lse[kRows], delta[kRows];
};

template <bool kDropout>
struct Shape {
  static constexpr int kKeys = kDropout ? 64 : 128, kStages = kDropout ? 3 : 2;  // the mask takes registers
  static constexpr int kBlocks = 2;                                              // of queries: the next one's are on their way
  using Queries = SwizzledTile<kRows, D>;
  using Keys = SwizzledTile<kKeys, D>;
  static constexpr std::size_t kShared = kAlignment + kBlocks * 2 * Queries::kBytes + 2 * kStages * Keys::kBytes +
                                         kBlocks * sizeof(QueryNumbers) + (2 * kStages + 2 * kBlocks + 1) * sizeof(ptx::Barrier);
};

// What both roles see of a block of queries and head, one after another. Key tiles are taken from the last to the first: the one that is
// not whole comes first.
template <bool kDropout>
struct Work {
  using S = Shape<kDropout>;
  bf16* shared;
  Turns turns;
  Span queries = {}, keys = {};
  std::int64_t sequence = 0;
  int first = 0, head = 0, tiles = 0;
  int tiles_before = 0;

  __device__ bool next(const AttentionBackward<bf16>& a) {
    kernels::Strip block;
    if (!turns.next(block, head)) return false;
    first = block.first_row, sequence = block.sequence;
    queries = span_of(block), keys = span_of(a.keys, keys_of(a.queries, sequence));
    tiles = (keys.length + S::kKeys - 1) / S::kKeys;
    return true;
  }
  __device__ typename S::Queries q() const { return {shared + ring_q().place(0) * 2 * S::Queries::kElements}; }
  __device__ typename S::Queries d_o() const { return {q().data + S::Queries::kElements}; }
  __device__ bf16* keys_and_values() const { return shared + S::kBlocks * 2 * S::Queries::kElements; }
  __device__ typename S::Keys k(int i) const { return {keys_and_values() + ring().place(i) * 2 * S::Keys::kElements}; }
  __device__ typename S::Keys v(int i) const { return {k(i).data + S::Keys::kElements}; }
  __device__ QueryNumbers* all_numbers() const {
    return reinterpret_cast<QueryNumbers*>(keys_and_values() + 2 * S::kStages * S::Keys::kElements);
  }
  __device__ QueryNumbers& numbers() const { return all_numbers()[ring_q().place(0)]; }
  __device__ ptx::Barrier* barriers() const { return reinterpret_cast<ptx::Barrier*>(all_numbers() + S::kBlocks); }
  __device__ Ring<S::kStages> ring() const { return {barriers(), barriers() + S::kStages, tiles_before}; }
  __device__ Ring<S::kBlocks> ring_q() const {
    return {barriers() + 2 * S::kStages, barriers() + 2 * S::kStages + S::kBlocks, turns.rounds - 1};
  }
  __device__ ptx::Barrier* cut() const { return barriers() + 2 * S::kStages + 2 * S::kBlocks; }
  __device__ int key_of(int i) const { return (tiles - 1 - i) * S::kKeys; }
  __device__ bool has_rows_for(int group) const { return first + 64 * group < queries.length; }
};

// The copying warp; `cuts`: how often it has cut keys.
template <bool kDropout>
__device__ __forceinline__ void bring(const Work<kDropout>& w, const AttentionBackward<bf16>& a, const Maps& maps, int& cuts) {
  using S = Shape<kDropout>;
  const int lane = lane_of_warp(), column = w.head * D;
  w.ring_q().wait_empty(0);
  for (int r = lane; r < kRows; r += kWarpSize) {
    const bool inside = w.first + r < w.queries.length;
    const std::int64_t at = w.head * a.q.rows + w.queries.first + w.first + r;
    w.numbers().lse[r] = inside ? a.lse[at] * kLog2e : INFINITY;
    w.numbers().delta[r] = inside ? a.workspace[at] : 0.0f;
  }
  ptx::Barrier* const queries_full = w.ring_q().full_of(0);  // every lane arrives with its numbers
  if (lane == 0) {
    ptx::barrier_arrive_expecting(queries_full, 2 * S::Queries::kBytes);
    w.q().copy(maps.q, column, w.queries.first + w.first, queries_full);
    w.d_o().copy(maps.d_o, column, w.queries.first + w.first, queries_full);
  } else {
    ptx::barrier_arrive(queries_full);
  }
  for (int i = 0; i < w.tiles; ++i) {
    const int valid = w.keys.length - w.key_of(i);
    ptx::Barrier* const full = w.ring().full_of(i);
    ptx::Barrier* const landed = valid < S::kKeys ? w.cut() : full;
    w.ring().wait_empty(i);
    if (lane == 0) {
      ptx::barrier_arrive_expecting(landed, 2 * S::Keys::kBytes);
      w.k(i).copy(maps.k, column, w.keys.first + w.key_of(i), landed);
      w.v(i).copy(maps.v, column, w.keys.first + w.key_of(i), landed);
    }
    if (landed == full) continue;
    ptx::barrier_wait(landed, cuts++ & 1);  // keys behind this sequence may not be finite: 0 · NaN is NaN
    w.k(i).clear_from(valid);
    ptx::fence_async();
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(full);
  }
}

template <bool kDropout>
__device__ __forceinline__ void gather(Work<kDropout>& w, const AttentionBackward<bf16>& a, const KeptBits& bits, int group) {
  constexpr int kKeys = Shape<kDropout>::kKeys;
  const int row = w.first + 64 * group + warp_of_block() % 4 * 16, lane = lane_of_warp();
  const float scale = a.scale * kLog2e, kept_scale = keep_scale(a.dropout);
  const std::uint32_t* const words = kDropout ? bits.at(w.head, KeptBits::strip_of(a.queries, w.sequence, row), 0) + lane : nullptr;
  std::uint32_t kept = 0, next = 0;
  const auto fetch = [&](int i) {
    if (kDropout && i < w.tiles && row < w.queries.length) next = words[w.key_of(i) / kKeys * kWarpSize];
  };
  fetch(0);
  w.ring_q().wait_full(0);
  float lse[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row - w.first + lane / 4 + 8 * half;
    lse[half] = w.numbers().lse[r], delta[half] = w.numbers().delta[r];
  }
  Fragment<D / 8> dq{};
  Fragment<kKeys / 8> s{}, ds{};
  std::uint32_t packed[kKeys / 16][4];
  const auto start_scores = [&] {
    w.ring().wait_full(0);
    product_of_rows<kKeys, D>(s, w.q(), 64 * group, w.k(0));
    product_of_rows<kKeys, D>(ds, w.d_o(), 64 * group, w.v(0));
  };
  const auto differentiate = [&](int i) {
    ptx::wgmma_done(s), ptx::wgmma_done(ds);
    kept = next;
    fetch(i + 1);
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float p = ptx::exp2(fmaf(s[j][e], scale, -lse[e / 2]));
        const float m = !kDropout ? 1.0f : keeps(kept, j % 8, e) ? kept_scale : 0.0f;
        ds[j][e] = p * (ds[j][e] * m - delta[e / 2]);
      }
    }
  };
  const auto cut = [&](int valid) {  // values behind this sequence may not be finite
    if (valid >= kKeys) return;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) ds[j][e] = 8 * j + lane % 4 * 2 + (e & 1) < valid ? ds[j][e] : 0.0f;
    }
  };
  if (w.tiles > 0) {
    start_scores();
    ptx::wgmma_wait<0>();
    differentiate(0);
    cut(w.keys.length - w.key_of(0));
    pack<kKeys>(packed, ds);
    for (int i = 1; i < w.tiles; ++i) {
      ++w.tiles_before;
      start_scores();
      add_product<D, kKeys>(dq, packed, w.k(-1));
      ptx::wgmma_wait<1>();
      differentiate(i);
      ptx::wgmma_wait<0>();
      ptx::wgmma_done(dq);
      w.ring().release(-1);
      pack<kKeys>(packed, ds);
    }
    add_product<D, kKeys>(dq, packed, w.k(0));
    ptx::wgmma_wait<0>();
    ptx::wgmma_done(dq);
    w.ring().release(0);
    ++w.tiles_before;
  }
  w.ring_q().release(0);
  const float by_scale[2] = {a.scale, a.scale};
  store_rows<D>(head_rows(a.dq.to, w.queries.first, w.head, D), row, w.queries.length, dq, by_scale, a.dq.into);
}

// attention_query_gradient_sm90_kernel: one block computes dq of 128 queries of one head, and then of the next.
// in   q, k, v, d_o (tokens, H·D) bf16, lse, delta (H, tokens), mask      out  dq (tokens, H·D)
// grid (multiprocessors)   block 384   shared Shape<kDropout>::kShared
// deterministic: key tiles from the last to the first; no keys: dq = 0
template <bool kDropout>
__global__ void __launch_bounds__(kThreads, 1)
    attention_query_gradient_sm90_kernel(const AttentionBackward<bf16> a, const KeptBits bits, const __grid_constant__ Maps maps,
                                         const __grid_constant__ Shares shares) {
  Work<kDropout> w{aligned_shared(), {shares}};
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;  // −1 copies
  if (threadIdx.x == 0) {
    w.ring().init(4 * kReaders), w.ring_q().init(4 * kReaders, kWarpSize);
    ptx::barrier_init(w.cut(), 1);
    ptx::barrier_init_done();
  }
  __syncthreads();
  if (group < 0) {
    ptx::registers_give<kGiven>();
    if (threadIdx.x >= kWarpSize) return;
    for (int cuts = 0; w.next(a); w.tiles_before += w.tiles) bring(w, a, maps, cuts);
  } else {
    ptx::registers_take<kTaken>();
    while (w.next(a)) {
      if (w.has_rows_for(group)) {
        gather(w, a, bits, group);
      } else {
        w.ring_q().pass(0);
        for (int i = 0; i < w.tiles; ++i, ++w.tiles_before) w.ring().pass(0);
      }
    }
  }
}

template <bool kDropout>
void run(const Queue& queue, const AttentionBackward<bf16>& a, const KeptBits& bits) {
  using S = Shape<kDropout>;
  static_assert(kRows == 128);
  const Shares shares = shares_of(queue, a.queries.blocks_of_128, a.heads, kReaders);
  const Maps maps{map_of(a.q, kRows), map_of(a.k, S::kKeys), map_of(a.v, S::kKeys), map_of(a.d_o, kRows)};
  launch("attention_query_gradient_sm90_kernel", attention_query_gradient_sm90_kernel<kDropout>,
         {dim3(shares.at_once), dim3(kThreads), S::kShared}, queue, a, bits, maps, shares);
}

}  // namespace

void attention_query_gradient(const Queue& queue, const AttentionBackward<bf16>& a, const KeptBits* mask) {
  mask ? run<true>(queue, a, *mask) : run<false>(queue, a, {});
}

}  // namespace lc::cuda::sm90
