// Attention backward on Hopper, as the portable one in two kernels without atomics. Scores and their gradients stay in registers: dq holds
// queries as rows; dk and dv hold keys as rows, so the weights are at once the operand of the next product, and the mask's bits change
// lanes. The mask is drawn once for both (kept_bits.cuh).
#include "kernels/cuda/kept_bits.cuh"
#include "kernels/cuda/sm90/attention.h"
#include "kernels/cuda/sm90/tile.cuh"

namespace lc::cuda::sm90 {
namespace {

using kernels::AttentionBackward;

constexpr int D = 64;  // the width of a head; of 128 wide ones dk and dv do not fit the registers
constexpr int kReaders = 2, kThreads = kWarpgroup * (kReaders + 1), kRows = 64 * kReaders;  // rows a block owns; one warpgroup copies
constexpr int kGiven = 56, kTaken = 224;                                                    // registers a thread

struct Maps {
  ptx::TensorMap q, k, v, d_o;
};

// ---- dq: queries stay, key tiles pass

template <bool kDropout>
struct QueryShape {
  static constexpr int kKeys = kDropout ? 64 : 128, kStages = kDropout ? 3 : 2;  // the mask takes registers
  using Queries = SwizzledTile<kRows, D>;
  using Keys = SwizzledTile<kKeys, D>;
  static constexpr std::size_t kShared =
      kAlignment + 2 * Queries::kBytes + 2 * kStages * Keys::kBytes + (2 * kStages + 2) * sizeof(ptx::Barrier);
};

// What both roles see of a block. Key tiles are taken from the last to the first: the one that is not whole comes first.
template <bool kDropout>
struct QueryWork {
  using S = QueryShape<kDropout>;
  Span queries, keys;
  int first, head, tiles;
  bf16* shared;

  __device__ typename S::Queries q() const { return {shared}; }
  __device__ typename S::Queries d_o() const { return {shared + S::Queries::kElements}; }
  __device__ typename S::Keys k(int i) const { return {shared + 2 * S::Queries::kElements + i % S::kStages * 2 * S::Keys::kElements}; }
  __device__ typename S::Keys v(int i) const { return {k(i).data + S::Keys::kElements}; }
  __device__ ptx::Barrier* barriers() const {
    return reinterpret_cast<ptx::Barrier*>(shared + 2 * S::Queries::kElements + 2 * S::kStages * S::Keys::kElements);
  }
  __device__ Ring<S::kStages> ring() const { return {barriers(), barriers() + S::kStages}; }
  __device__ ptx::Barrier* queries_full() const { return barriers() + 2 * S::kStages; }
  __device__ ptx::Barrier* cut() const { return barriers() + 2 * S::kStages + 1; }
  __device__ int key_of(int i) const { return (tiles - 1 - i) * S::kKeys; }
  __device__ int readers() const { return min(kReaders, (queries.length - first + 63) / 64); }
};

template <bool kDropout>
__device__ __forceinline__ void bring_keys(const QueryWork<kDropout>& w, const Maps& maps) {
  using S = QueryShape<kDropout>;
  const bool leader = lane_of_warp() == 0;
  const int column = w.head * D;
  if (leader) {
    ptx::barrier_arrive_expecting(w.queries_full(), 2 * S::Queries::kBytes);
    w.q().copy(maps.q, column, w.queries.first + w.first, w.queries_full());
    w.d_o().copy(maps.d_o, column, w.queries.first + w.first, w.queries_full());
  }
  for (int i = 0; i < w.tiles; ++i) {
    const int valid = w.keys.length - w.key_of(i);
    ptx::Barrier* const full = w.ring().full + i % S::kStages;
    ptx::Barrier* const landed = valid < S::kKeys ? w.cut() : full;
    w.ring().wait_empty(i);
    if (leader) {
      ptx::barrier_arrive_expecting(landed, 2 * S::Keys::kBytes);
      w.k(i).copy(maps.k, column, w.keys.first + w.key_of(i), landed);
      w.v(i).copy(maps.v, column, w.keys.first + w.key_of(i), landed);
    }
    if (landed == full) continue;
    ptx::barrier_wait(landed, 0);  // keys behind this sequence may not be finite: 0 · NaN is NaN
    w.k(i).clear_from(valid);
    ptx::fence_async();
    __syncwarp();
    if (leader) ptx::barrier_arrive(full);
  }
}

template <bool kDropout>
__device__ __forceinline__ void gather_dq(const QueryWork<kDropout>& w, const AttentionBackward<bf16>& a, const KeptBits& bits,
                                          std::int64_t sequence, int group) {
  constexpr int kKeys = QueryShape<kDropout>::kKeys;
  const int row = w.first + 64 * group + warp_of_block() % 4 * 16, lane = lane_of_warp();
  const float scale = a.scale * kLog2e, kept_scale = keep_scale(a.dropout);
  float lse[2] = {INFINITY, INFINITY}, delta[2] = {0, 0};  // of rows outside: their weights are 0
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + lane / 4 + 8 * half;
    const std::int64_t at = w.head * a.q.rows + w.queries.first + r;
    if (r < w.queries.length) lse[half] = a.lse[at] * kLog2e, delta[half] = a.workspace[at];
  }
  const std::uint32_t* const words = kDropout ? bits.at(w.head, KeptBits::strip_of(a.queries, sequence, row), 0) + lane : nullptr;
  std::uint32_t kept = 0, next = 0;
  const auto fetch = [&](int i) {
    if (kDropout && i < w.tiles && row < w.queries.length) next = words[w.key_of(i) / kKeys * kWarpSize];
  };
  fetch(0);
  Fragment<D / 8> dq{};
  Fragment<kKeys / 8> s{}, ds{};
  std::uint32_t packed[kKeys / 16][4];
  const auto start_scores = [&](int i) {
    w.ring().wait_full(i);
    product_of_rows<kKeys, D>(s, w.q(), 64 * group, w.k(i));
    product_of_rows<kKeys, D>(ds, w.d_o(), 64 * group, w.v(i));
  };
  const auto differentiate = [&](int i) {
    ptx::wgmma_done(s), ptx::wgmma_done(ds);
    kept = next;
    fetch(i + 1);
    const int valid = w.keys.length - w.key_of(i) - lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float p = ptx::exp2(fmaf(s[j][e], scale, -lse[e / 2]));
        const float m = !kDropout ? 1.0f : keeps(kept, j % 8, e) ? kept_scale : 0.0f;
        ds[j][e] = 8 * j + (e & 1) < valid ? p * (ds[j][e] * m - delta[e / 2]) : 0.0f;
      }
    }
  };
  if (w.tiles > 0) {
    ptx::barrier_wait(w.queries_full(), 0);
    start_scores(0);
    ptx::wgmma_wait<0>();
    differentiate(0);
    pack<kKeys>(packed, ds);
    for (int i = 1; i < w.tiles; ++i) {
      start_scores(i);
      add_product<D, kKeys>(dq, packed, w.k(i - 1));
      ptx::wgmma_wait<1>();
      differentiate(i);
      ptx::wgmma_wait<0>();
      ptx::wgmma_done(dq);
      w.ring().release(i - 1);
      pack<kKeys>(packed, ds);
    }
    add_product<D, kKeys>(dq, packed, w.k(w.tiles - 1));
    ptx::wgmma_wait<0>();
    ptx::wgmma_done(dq);
  }
  const float by_scale[2] = {a.scale, a.scale};
  store_rows<D>(head_rows(a.dq.to, w.queries.first, w.head, D), row, w.queries.length, dq, by_scale, a.dq.into);
}

// attention_query_gradient_sm90_kernel: one block computes dq of 128 queries of one head.
// in   q, k, v, d_o (tokens, H·D) bf16, lse, delta (H, tokens), mask      out  dq (tokens, H·D)
// grid (blocks of 128 queries, H)   block 384   shared QueryShape<kDropout>::kShared
// deterministic: key tiles from the last to the first; no keys: dq = 0
template <bool kDropout>
__global__ void __launch_bounds__(kThreads, 1)
    attention_query_gradient_sm90_kernel(const AttentionBackward<bf16> a, const KeptBits bits, const __grid_constant__ Maps maps) {
  using S = QueryShape<kDropout>;
  const kernels::Strip block = a.queries.blocks_of_128.all[blockIdx.x];
  QueryWork<kDropout> w;
  w.first = block.first_row, w.head = static_cast<int>(blockIdx.y);
  w.queries = span_of(block), w.keys = span_of(a.keys, keys_of(a.queries, block.sequence));
  w.tiles = (w.keys.length + S::kKeys - 1) / S::kKeys, w.shared = aligned_shared();
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;  // −1 copies
  if (threadIdx.x == 0) {
    w.ring().init(4 * w.readers());
    ptx::barrier_init(w.queries_full(), 1), ptx::barrier_init(w.cut(), 1);
    ptx::barrier_init_done();
  }
  __syncthreads();
  if (group < 0) {
    ptx::registers_give<kGiven>();
    if (threadIdx.x < kWarpSize) bring_keys(w, maps);
  } else {
    ptx::registers_take<kTaken>();
    if (group < w.readers()) gather_dq(w, a, bits, block.sequence, group);
  }
}

// ---- dk, dv: keys stay, query tiles of all sequences that read them pass

constexpr int kQueries = 64;

struct QueryNumbers {  // of one query tile
  float lse[kQueries], delta[kQueries];
  std::uint32_t kept[kQueries / 16][kRows / 64][kWarpSize];  // of these keys
};
struct KeyShape {
  static constexpr int kStages = 3;
  using Keys = SwizzledTile<kRows, D>;
  using Queries = SwizzledTile<kQueries, D>;
  static constexpr std::size_t kShared = kAlignment + 2 * Keys::kBytes + 2 * kStages * Queries::kBytes + kStages * sizeof(QueryNumbers) +
                                         (2 * kStages + 2) * sizeof(ptx::Barrier);
};

struct KeyWork {
  using S = KeyShape;
  Span keys;
  std::int64_t key_sequence;
  int first, head;
  bf16* shared;

  __device__ S::Keys k() const { return {shared}; }
  __device__ S::Keys v() const { return {shared + S::Keys::kElements}; }
  __device__ S::Queries q(int i) const { return {shared + 2 * S::Keys::kElements + i % S::kStages * 2 * S::Queries::kElements}; }
  __device__ S::Queries d_o(int i) const { return {q(i).data + S::Queries::kElements}; }
  __device__ QueryNumbers* numbers() const {
    return reinterpret_cast<QueryNumbers*>(shared + 2 * S::Keys::kElements + 2 * S::kStages * S::Queries::kElements);
  }
  __device__ QueryNumbers& numbers(int i) const { return numbers()[i % S::kStages]; }
  __device__ ptx::Barrier* barriers() const { return reinterpret_cast<ptx::Barrier*>(numbers() + S::kStages); }
  __device__ Ring<S::kStages> ring() const { return {barriers(), barriers() + S::kStages}; }
  __device__ ptx::Barrier* keys_full() const { return barriers() + 2 * S::kStages; }
  __device__ ptx::Barrier* cut() const { return barriers() + 2 * S::kStages + 1; }
  __device__ int readers() const { return min(kReaders, (keys.length - first + 63) / 64); }
};

// The query tiles that read a key sequence, in order; both roles walk the same. The list of its strips names the query sequences.
struct QueryTiles {
  const kernels::PackingView& queries;
  Readers strips;
  std::int64_t sequence = -1;
  Span rows{};
  int row = 0;

  __device__ QueryTiles(const kernels::PackingView& packing, std::int64_t key_sequence)
      : queries(packing), strips(readers_of(packing.strips, key_sequence)) {}
  __device__ __forceinline__ bool next() {
    row += kQueries;
    if (row < rows.length) return true;
    if (strips.begin == strips.end) return false;
    sequence = strips.begin->sequence, row = 0, rows = span_of(queries, sequence);
    strips.begin += (rows.length + 15) / 16;
    return true;
  }
};

template <bool kDropout>
__device__ __forceinline__ void bring_queries(const KeyWork& w, const AttentionBackward<bf16>& a, const KeptBits& bits, const Maps& maps) {
  using S = KeyShape;
  const int lane = lane_of_warp(), column = w.head * D;
  if (lane == 0) {
    ptx::barrier_arrive_expecting(w.keys_full(), 2 * S::Keys::kBytes);
    w.k().copy(maps.k, column, w.keys.first + w.first, w.keys_full());
    w.v().copy(maps.v, column, w.keys.first + w.first, w.keys_full());
  }
  QueryTiles at{a.queries, w.key_sequence};
  for (int i = 0, cuts = 0; at.next(); ++i) {
    const int valid = at.rows.length - at.row;
    ptx::Barrier* const full = w.ring().full + i % S::kStages;
    ptx::Barrier* const landed = valid < kQueries ? w.cut() : full;
    w.ring().wait_empty(i);
    QueryNumbers& n = w.numbers(i);
    for (int r = lane; r < kQueries; r += kWarpSize) {
      const std::int64_t token = w.head * a.q.rows + at.rows.first + at.row + r;
      n.lse[r] = r < valid ? a.lse[token] * kLog2e : INFINITY;  // weights of rows behind the sequence are 0
      n.delta[r] = r < valid ? a.workspace[token] : 0.0f;
    }
    if constexpr (kDropout) {
      using Four = Vector<std::uint32_t, 4>;
      constexpr int kFours = kRows / 64 * kWarpSize / 4;  // of a strip: what two key blocks hold of it lies together
      const Four* const from =
          reinterpret_cast<const Four*>(bits.at(w.head, KeptBits::strip_of(a.queries, at.sequence, at.row), w.first / 64));
      Four* const to = reinterpret_cast<Four*>(n.kept);
#pragma unroll
      for (int four = lane; four < kQueries / 16 * kFours; four += kWarpSize) {
        const int strip = four / kFours;
        if (16 * strip < valid) to[four] = from[strip * bits.key_blocks * (kWarpSize / 4) + four % kFours];
      }
    }
    __syncwarp();
    if (lane == 0) {
      ptx::barrier_arrive_expecting(landed, 2 * S::Queries::kBytes);
      w.q(i).copy(maps.q, column, at.rows.first + at.row, landed);
      w.d_o(i).copy(maps.d_o, column, at.rows.first + at.row, landed);
    }
    if (landed == full) continue;
    ptx::barrier_wait(landed, cuts++ & 1);  // rows behind this sequence may not be finite: 0 · NaN is NaN
    w.q(i).clear_from(valid), w.d_o(i).clear_from(valid);
    ptx::fence_async();
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(full);
  }
}

// The mask of 16 keys (from `key` of the block on) × 64 queries for a lane of a product that holds keys as rows. Bits lie as lanes own them
// with queries as rows; this lane's elements are in two words of every 16 queries.
struct TransposedStrip {
  std::uint32_t kept = 0;  // of the queries 16·i …: bit 16·(j mod 2) + 4·i + 2·(e mod 2) + 1 − e / 2 for element e of fragment j

  __device__ __forceinline__ void take(const QueryNumbers& n, int key) {
    const int g = lane_of_warp() / 4, t = lane_of_warp() % 4, shift = 8 * (g % 2) + 6 - key % 64 / 8;
    kept = 0;
#pragma unroll
    for (int i = 0; i < kQueries / 16; ++i) {
      const std::uint32_t* const words = n.kept[i][key / 64] + 8 * t + g / 2;  // queries 2·t and 2·t + 1, keys g + 8 and g
      kept |= ((words[0] >> shift & 0x00030003u) | (words[4] >> shift & 0x00030003u) << 2) << (4 * i);
    }
  }
  __device__ __forceinline__ bool keeps(int j, int e) const { return kept & 1u << (16 * (j % 2) + 4 * (j / 2) + 2 * (e % 2) + 1 - e / 2); }
};

template <bool kDropout>
__device__ __forceinline__ void gather_dk_dv(const KeyWork& w, const AttentionBackward<bf16>& a, int group) {
  const int row = 64 * group + warp_of_block() % 4 * 16, t = lane_of_warp() % 4;
  const float scale = a.scale * kLog2e, kept_scale = keep_scale(a.dropout);
  Fragment<D / 8> dk{}, dv{};
  Fragment<kQueries / 8> s{}, ds{};
  std::uint32_t p[kQueries / 16][4], dp[kQueries / 16][4], k[D / 16][4], v[D / 16][4];
  ptx::barrier_wait(w.keys_full(), 0);
  if constexpr (!kDropout) {
#pragma unroll
    for (int i = 0; i < D / 16; ++i) w.k().registers(k[i], row, 16 * i), w.v().registers(v[i], row, 16 * i);
  }
  QueryTiles at{a.queries, w.key_sequence};
  const auto start_scores = [&](int i) {
    w.ring().wait_full(i);
    if constexpr (kDropout) {  // the mask needs the registers
      product_of_rows<kQueries, D>(s, w.k(), 64 * group, w.q(i));
      product_of_rows<kQueries, D>(ds, w.v(), 64 * group, w.d_o(i));
    } else {
      product_of_rows<kQueries, D>(s, k, w.q(i));
      product_of_rows<kQueries, D>(ds, v, w.d_o(i));
    }
  };
  // Weights in s before dropout; kept ones, rounded, in p when the products before have run.
  TransposedStrip keep;
  const auto weigh = [&](int i) {
    const QueryNumbers& n = w.numbers(i);
    if constexpr (kDropout) keep.take(n, row);
    ptx::wgmma_wait<1>();
    ptx::wgmma_done(s);
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[j][e] = ptx::exp2(fmaf(s[j][e], scale, -n.lse[8 * j + 2 * t + e % 2]));
    }
    ptx::wgmma_wait<0>();
    ptx::wgmma_done(ds), ptx::wgmma_done(dk);
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      float x[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) x[e] = !kDropout ? s[j][e] : keep.keeps(j, e) ? s[j][e] * kept_scale : 0.0f;
      pack_half(p[j / 2], j % 2, x);
    }
  };
  const auto differentiate = [&](int i) {
    const QueryNumbers& n = w.numbers(i);
    add_product<D, kQueries>(dv, p, w.d_o(i));
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      float x[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float m = !kDropout ? 1.0f : keep.keeps(j, e) ? kept_scale : 0.0f;
        x[e] = s[j][e] * (ds[j][e] * m - n.delta[8 * j + 2 * t + e % 2]);
      }
      pack_half(dp[j / 2], j % 2, x);
    }
    ptx::wgmma_wait<0>();
    ptx::wgmma_done(dv);
  };
  if (at.next()) {
    start_scores(0);
    weigh(0);
    differentiate(0);
    int i = 1;
    for (; at.next(); ++i) {
      start_scores(i);
      add_product<D, kQueries>(dk, dp, w.q(i - 1));
      weigh(i);
      w.ring().release(i - 1);
      differentiate(i);
    }
    add_product<D, kQueries>(dk, dp, w.q(i - 1));
    ptx::wgmma_wait<0>();
    ptx::wgmma_done(dk);
  }
  const float by_scale[2] = {a.scale, a.scale}, by_one[2] = {1, 1};
  if (a.dk) store_rows<D>(head_rows(a.dk.to, w.keys.first, w.head, D), w.first + row, w.keys.length, dk, by_scale, a.dk.into);
  if (a.dv) store_rows<D>(head_rows(a.dv.to, w.keys.first, w.head, D), w.first + row, w.keys.length, dv, by_one, a.dv.into);
}

// attention_key_gradient_sm90_kernel: one block computes dk and dv of 128 keys of one head, over all query sequences that read them.
// in   q, k, v, d_o (tokens, H·D) bf16, lse, delta (H, tokens), mask      out  dk, dv (tokens, H·D)
// grid (blocks of 128 keys, H)   block 384   shared KeyShape::kShared
// deterministic: queries in order; keys that nobody reads get 0
template <bool kDropout>
__global__ void __launch_bounds__(kThreads, 1)
    attention_key_gradient_sm90_kernel(const AttentionBackward<bf16> a, const KeptBits bits, const __grid_constant__ Maps maps) {
  const kernels::Strip block = a.keys.blocks_of_128.all[blockIdx.x];
  KeyWork w;
  w.key_sequence = block.sequence, w.first = block.first_row, w.keys = span_of(block);
  w.head = static_cast<int>(blockIdx.y), w.shared = aligned_shared();
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;  // −1 copies
  if (threadIdx.x == 0) {
    w.ring().init(4 * w.readers());
    ptx::barrier_init(w.keys_full(), 1), ptx::barrier_init(w.cut(), 1);
    ptx::barrier_init_done();
  }
  __syncthreads();
  if (group < 0) {
    ptx::registers_give<kGiven>();
    if (threadIdx.x < kWarpSize) bring_queries<kDropout>(w, a, bits, maps);
  } else {
    ptx::registers_take<kTaken>();
    if (group < w.readers()) gather_dk_dv<kDropout>(w, a, group);
  }
}

Grid by_blocks(const kernels::PackingView& packing, int heads, std::size_t shared) {
  return {dim3(static_cast<unsigned>(packing.blocks_of_128.count), static_cast<unsigned>(heads)), dim3(kThreads), shared};
}

template <bool kDropout>
void run(const Queue& queue, const AttentionBackward<bf16>& a, const KeptBits& bits) {
  static_assert(kRows == 128);
  if (a.dk || a.dv) {
    const Maps maps{map_of(a.q, kQueries), map_of(a.k, kRows), map_of(a.v, kRows), map_of(a.d_o, kQueries)};
    launch("attention_key_gradient_sm90_kernel", attention_key_gradient_sm90_kernel<kDropout>,
           by_blocks(a.keys, a.heads, KeyShape::kShared), queue, a, bits, maps);
  }
  if (a.dq) {
    constexpr int kKeys = QueryShape<kDropout>::kKeys;
    const Maps maps{map_of(a.q, kRows), map_of(a.k, kKeys), map_of(a.v, kKeys), map_of(a.d_o, kRows)};
    launch("attention_query_gradient_sm90_kernel", attention_query_gradient_sm90_kernel<kDropout>,
           by_blocks(a.queries, a.heads, QueryShape<kDropout>::kShared), queue, a, bits, maps);
  }
}

}  // namespace

bool attention_backward(const Queue& queue, const AttentionBackward<bf16>& a) {
  if (!chosen(queue) || a.q.rows == 0 || a.k.rows == 0 || a.q.columns / a.heads != D) return false;
  if (a.dropout.rate > 0)
    run<true>(queue, a, KeptBitsRoom(queue, a).bits);
  else
    run<false>(queue, a, {});
  return true;
}

}  // namespace lc::cuda::sm90
