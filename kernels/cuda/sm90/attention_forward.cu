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
      kAlignment + kStages * (Queries::kBytes + 2 * Keys::kBytes) + (6 * kStages + 1) * sizeof(ptx::Barrier);
};
struct Maps {
  ptx::TensorMap q, k, v;
};
template <int kRows>
__host__ __device__ __forceinline__ const kernels::RowBlocks& blocks_of(const kernels::PackingView& packing) {
  static_assert(kRows == 128 || kRows == 192);
  return kRows == 192 ? packing.blocks_of_192 : packing.blocks_of_128;
}

// What both roles see of a block of queries and head, one after another. Key tiles are taken from the last to the first: the one that is
// not whole comes first.
template <int D>
struct Work {
  using S = Shape<D>;
  bf16* shared;
  Turns turns;
  Span queries = {}, keys = {};
  std::int64_t sequence = 0;
  int first = 0, head = 0, tiles = 0;
  int tiles_before = 0;

  __device__ bool next(const AttentionForward<bf16>& a) {
    kernels::Strip block;
    if (!turns.next(block, head)) return false;
    first = block.first_row, sequence = block.sequence;
    queries = span_of(block), keys = span_of(a.keys, keys_of(a.queries, sequence));
    tiles = (keys.length + S::kKeys - 1) / S::kKeys;
    return true;
  }
  __device__ bf16* keys_and_values() const { return shared + S::kStages * S::Queries::kElements; }
  __device__ typename S::Queries q() const { return {shared + ring_q().place(0) * S::Queries::kElements}; }
  __device__ typename S::Keys k(int i) const { return {keys_and_values() + ring_k().place(i) * S::Keys::kElements}; }
  __device__ typename S::Keys v(int i) const { return {k(i).data + S::kStages * S::Keys::kElements}; }
  __device__ ptx::Barrier* barriers() const {
    return reinterpret_cast<ptx::Barrier*>(keys_and_values() + 2 * S::kStages * S::Keys::kElements);
  }
  __device__ Ring<S::kStages> ring(int number, int filled) const {
    return {barriers() + 2 * number * S::kStages, barriers() + (2 * number + 1) * S::kStages, filled};
  }
  __device__ Ring<S::kStages> ring_k() const { return ring(0, tiles_before); }
  __device__ Ring<S::kStages> ring_v() const { return ring(1, tiles_before); }
  __device__ Ring<S::kStages> ring_q() const { return ring(2, turns.rounds - 1); }
  __device__ ptx::Barrier* cut() const { return barriers() + 6 * S::kStages; }  // the first values, before rows behind them are cleared
  __device__ int key_of(int i) const { return (tiles - 1 - i) * S::kKeys; }
  __device__ bool has_rows_for(int group) const { return first + 64 * group < queries.length; }
};

// The copying warp; `cuts`: how often it has cut values.
template <int D>
__device__ __forceinline__ void bring(const Work<D>& w, const Maps& maps, int& cuts) {
  using S = Shape<D>;
  const bool leader = lane_of_warp() == 0;
  const int column = w.head * D;
  const auto start = [&](const auto& to, const ptx::TensorMap& map, std::int64_t row, ptx::Barrier* full) {
    if (!leader) return;
    ptx::barrier_arrive_expecting(full, to.kBytes);
    to.copy(map, column, row, full);
  };
  const auto start_k = [&](int i) {
    w.ring_k().wait_empty(i);
    start(w.k(i), maps.k, w.keys.first + w.key_of(i), w.ring_k().full_of(i));
  };
  w.ring_q().wait_empty(0);
  start(w.q(), maps.q, w.queries.first + w.first, w.ring_q().full_of(0));
  if (w.tiles > 0) start_k(0);
  for (int i = 0; i < w.tiles; ++i) {
    if (i + 1 < w.tiles) start_k(i + 1);
    w.ring_v().wait_empty(i);
    const int valid = w.keys.length - w.key_of(i);
    ptx::Barrier* const full = w.ring_v().full_of(i);
    start(w.v(i), maps.v, w.keys.first + w.key_of(i), valid < S::kKeys ? w.cut() : full);
    if (valid >= S::kKeys) continue;
    ptx::barrier_wait(w.cut(), cuts++ & 1);  // what lies behind this sequence may not be finite: 0 · NaN is NaN
    w.v(i).clear_from(valid);
    ptx::fence_async();
    __syncwarp();
    if (leader) ptx::barrier_arrive(full);
  }
}

// A warpgroup's scores of one key tile become weights before dropout's factor; `shrink` is what earlier tiles lose.
template <bool kDropout, int kKeys>
struct Softmax {
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // top before scaling
  KeepStrip keep;

  // Scores of keys from `valid` on weigh nothing.
  static __device__ __forceinline__ void cut(Fragment<kKeys / 8>& s, int valid) {
    const int t = lane_of_warp() % 4;
    if (valid >= kKeys) return;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[j][e] = 8 * j + 2 * t + (e & 1) < valid ? s[j][e] : -INFINITY;
    }
  }
  __device__ __forceinline__ void of_tile(Fragment<kKeys / 8>& s, float (&shrink)[2], float scale, const Dropout& d, const StripPlace& at) {
    float minus_top[2];
    std::uint64_t sequence = at.sequence;
    if constexpr (kDropout) ptx::forget(sequence);
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
      if constexpr (kDropout) draw(keep, d, {sequence, at.head, at.first_row, at.first_key + 64 * strip});
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
__device__ __forceinline__ void attend(Work<D>& w, const AttentionForward<bf16>& a, int group) {
  using S = Shape<D>;
  constexpr int kKeys = S::kKeys;
  const int row = w.first + 64 * group + warp_of_block() % 4 * 16;
  const std::uint64_t key = a.queries.keys[w.sequence];
  Fragment<D / 8> o{};
  Fragment<kKeys / 8> s{};
  std::uint32_t p[kKeys / 16][4];
  float shrink[2];
  Softmax<kDropout, kKeys> softmax;
  if constexpr (kDropout) softmax.keep.threshold = keep_threshold(a.dropout, key, w.head, row / 16);
  const auto soften = [&](int first_key) { softmax.of_tile(s, shrink, a.scale, a.dropout, {key, w.head, row, first_key}); };

  w.ring_q().wait_full(0);
  w.ring_k().wait_full(0);
  product_of_rows<kKeys, D>(s, w.q(), 64 * group, w.k(0));
  ptx::wgmma_wait<0>();
  ptx::wgmma_done(s);
  w.ring_k().release(0);
  softmax.cut(s, w.keys.length - w.key_of(0));
  soften(w.key_of(0));
  pack<kKeys>(p, s);
  for (int first_key = w.key_of(1); first_key >= 0; first_key -= kKeys) {
    ++w.tiles_before;
    w.ring_k().wait_full(0);
    product_of_rows<kKeys, D>(s, w.q(), 64 * group, w.k(0));
    w.ring_v().wait_full(-1);
    add_product<D, kKeys>(o, p, w.v(-1));
    ptx::wgmma_wait<1>();
    ptx::wgmma_done(s);
    w.ring_k().release(0);
    soften(first_key);
    if (!kDropout && softmax.sum[0] + softmax.sum[1] < 0) break;  // never; a branch that ptxas does not move the wait across
    ptx::wgmma_wait<0>();
    ptx::wgmma_done(o);
    w.ring_v().release(-1);
    pack<kKeys>(p, s);
#pragma unroll
    for (int j = 0; j < D / 8; ++j) o[j][0] *= shrink[0], o[j][1] *= shrink[0], o[j][2] *= shrink[1], o[j][3] *= shrink[1];
  }
  w.ring_q().release(0);
  w.ring_v().wait_full(0);
  add_product<D, kKeys>(o, p, w.v(0));
  ptx::wgmma_wait<0>();
  ptx::wgmma_done(o);
  w.ring_v().release(0);
  ++w.tiles_before;

  int head = 0;
  kernels::Strip block;
  w.turns.current(block, head);
  const Span queries = span_of(block);
  const int first = block.first_row + 64 * group + warp_of_block() % 4 * 16, lane = lane_of_warp();
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = warp_sum<4>(softmax.sum[half]);
    factor[half] = keep_scale(a.dropout) / sum;
    const int r = first + lane / 4 + 8 * half;
    if (a.lse && lane % 4 == 0 && r < queries.length)
      a.lse[head * a.q.rows + queries.first + r] = (softmax.top[half] * a.scale + log2f(sum)) * kLn2;
  }
  store_rows<D>(head_rows(a.o, queries.first, head, D), first, queries.length, o, factor, kernels::Into::write);
}

// A warpgroup's rows of a sequence that has no keys.
template <int D>
__device__ __forceinline__ void without_keys(const AttentionForward<bf16>& a, const Work<D>& w, int group) {
  for (int i = static_cast<int>(threadIdx.x) % kWarpgroup; i < 64 * (D / 8); i += kWarpgroup) {
    const int row = w.first + 64 * group + i / (D / 8);
    if (row >= w.queries.length) return;
    *reinterpret_cast<Vector<std::uint32_t, 4>*>(a.o.row(w.queries.first + row) + w.head * D + i % (D / 8) * 8) = {};
    if (a.lse && i % (D / 8) == 0) a.lse[w.head * a.q.rows + w.queries.first + row] = -INFINITY;
  }
}

// attention_forward_sm90_kernel: one block computes 64 queries a warpgroup of one head of one sequence, and then the next.
// in   q, k, v (tokens, H·D) bf16, packings; scale times log2 e      out  o (tokens, H·D), lse (H, tokens) float
// grid (multiprocessors)   block 128·(warpgroups + 1)   shared Shape<D>::kShared
// moves q + o once, k + v once per query tile; deterministic; no keys: o = 0, lse = −∞
template <int D, bool kDropout>
__global__ void __launch_bounds__(Shape<D>::kThreads, 1)
    attention_forward_sm90_kernel(const AttentionForward<bf16> a, const __grid_constant__ Maps maps,
                                  const __grid_constant__ Shares shares) {
  using S = Shape<D>;
  Work<D> w{aligned_shared(), {shares}};
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;  // −1 copies
  if (threadIdx.x == 0) {
    w.ring_k().init(4 * S::kReaders), w.ring_v().init(4 * S::kReaders), w.ring_q().init(4 * S::kReaders);
    ptx::barrier_init(w.cut(), 1);
    ptx::barrier_init_done();
  }
  __syncthreads();
  if (group < 0) {
    ptx::registers_give<S::kGiven>();
    if (threadIdx.x >= kWarpSize) return;
    for (int cuts = 0; w.next(a); w.tiles_before += w.tiles) bring(w, maps, cuts);
  } else {
    ptx::registers_take<S::kTaken>();
    while (w.next(a)) {
      if (w.tiles > 0 && w.has_rows_for(group)) {
        attend<D, kDropout>(w, a, group);
        continue;
      }
      if (w.tiles == 0) without_keys(a, w, group);
      w.ring_q().pass(0);
      for (; w.tiles > 0; --w.tiles, ++w.tiles_before) w.ring_k().pass(0), w.ring_v().pass(0);
    }
  }
}

template <int D>
bool run(const Queue& queue, AttentionForward<bf16> a) {
  using S = Shape<D>;
  a.scale *= kLog2e;
  const Shares shares = shares_of(queue, blocks_of<S::kRows>(a.queries), a.heads, S::kReaders);
  if (shares.at_once == 0) return true;
  const Grid grid{dim3(shares.at_once), dim3(S::kThreads), S::kShared};
  const Maps maps{map_of(a.q, S::kRows), map_of(a.k, S::kKeys), map_of(a.v, S::kKeys)};
  launch("attention_forward_sm90_kernel",
         a.dropout.rate > 0 ? attention_forward_sm90_kernel<D, true> : attention_forward_sm90_kernel<D, false>, grid, queue, a, maps,
         shares);
  return true;
}

}  // namespace

bool attention_forward(const Queue& queue, const AttentionForward<bf16>& a) {
  if (!chosen(queue) || a.k.rows == 0) return false;
  const std::int64_t width = a.q.columns / a.heads;
  return width == 64 ? run<64>(queue, a) : width == 128 && run<128>(queue, a);
}

}  // namespace lc::cuda::sm90
