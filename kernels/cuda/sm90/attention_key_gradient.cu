// dk and dv on Hopper: keys stay, query tiles of all sequences that read them pass. Scores and their gradients stay in registers, keys as
// rows, so the weights are at once the operand of the next product; the mask's bits change lanes.
#include "kernels/cuda/kept_bits.cuh"
#include "kernels/cuda/sm90/attention.h"
#include "kernels/cuda/sm90/tile.cuh"

namespace lc::cuda::sm90 {
namespace {

using kernels::AttentionBackward;

constexpr int D = 64;                                                                       // the width of a head
constexpr int kReaders = 2, kThreads = kWarpgroup * (kReaders + 1), kRows = 64 * kReaders;  // keys of a block; one warpgroup copies
constexpr int kGiven = 56, kTaken = 224;                                                    // registers a thread
constexpr int kQueries = 64;                                                                // of a tile

struct Maps {
  ptx::TensorMap q, k, v, d_o;
};
struct QueryNumbers {  // of one query tile
  float lse[kQueries], delta[kQueries];
  std::uint32_t kept[kQueries / 16][kRows / 64][kWarpSize];  // of these keys
};
struct Shape {
  static constexpr int kStages = 3, kBlocks = 2;  // of query tiles; of keys: the next one's are on their way
  using Keys = SwizzledTile<kRows, D>;
  using Queries = SwizzledTile<kQueries, D>;
  static constexpr std::size_t kShared = kAlignment + kBlocks * 2 * Keys::kBytes + 2 * kStages * Queries::kBytes +
                                         kStages * sizeof(QueryNumbers) + (2 * kStages + 2 * kBlocks + 1) * sizeof(ptx::Barrier);
};

// What both roles see of a block of keys and head, one after another.
struct Work {
  using S = Shape;
  bf16* shared;
  Turns turns;
  Span keys = {};
  std::int64_t key_sequence = 0;
  int first = 0, head = 0;
  int tiles_before = 0;

  __device__ bool next() {
    kernels::Strip block;
    if (!turns.next(block, head)) return false;
    key_sequence = block.sequence, first = block.first_row, keys = span_of(block);
    return true;
  }
  __device__ S::Keys k() const { return {shared + ring_k().place(0) * 2 * S::Keys::kElements}; }
  __device__ S::Keys v() const { return {k().data + S::Keys::kElements}; }
  __device__ bf16* all_queries() const { return shared + S::kBlocks * 2 * S::Keys::kElements; }
  __device__ S::Queries q(int i) const { return {all_queries() + ring().place(i) * 2 * S::Queries::kElements}; }
  __device__ S::Queries d_o(int i) const { return {q(i).data + S::Queries::kElements}; }
  __device__ QueryNumbers* all_numbers() const {
    return reinterpret_cast<QueryNumbers*>(all_queries() + 2 * S::kStages * S::Queries::kElements);
  }
  __device__ QueryNumbers& numbers(int i) const { return all_numbers()[ring().place(i)]; }
  __device__ ptx::Barrier* barriers() const { return reinterpret_cast<ptx::Barrier*>(all_numbers() + S::kStages); }
  __device__ Ring<S::kStages> ring() const { return {barriers(), barriers() + S::kStages, tiles_before}; }
  __device__ Ring<S::kBlocks> ring_k() const {
    return {barriers() + 2 * S::kStages, barriers() + 2 * S::kStages + S::kBlocks, turns.rounds - 1};
  }
  __device__ ptx::Barrier* cut() const { return barriers() + 2 * S::kStages + 2 * S::kBlocks; }
  __device__ bool has_rows_for(int group) const { return first + 64 * group < keys.length; }
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

// The copying warp; `cuts`: how often it has cut queries.
template <bool kDropout>
__device__ __forceinline__ void bring(Work& w, const AttentionBackward<bf16>& a, const KeptBits& bits, const Maps& maps, int& cuts) {
  using S = Shape;
  const int lane = lane_of_warp(), column = w.head * D;
  w.ring_k().wait_empty(0);
  if (lane == 0) {
    ptx::Barrier* const full = w.ring_k().full_of(0);
    ptx::barrier_arrive_expecting(full, 2 * S::Keys::kBytes);
    w.k().copy(maps.k, column, w.keys.first + w.first, full);
    w.v().copy(maps.v, column, w.keys.first + w.first, full);
  }
  for (QueryTiles at{a.queries, w.key_sequence}; at.next(); ++w.tiles_before) {
    const int valid = at.rows.length - at.row;
    w.ring().wait_empty(0);
    QueryNumbers& n = w.numbers(0);
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
    const auto start = [&](ptx::Barrier* landed) {
      ptx::barrier_arrive_expecting(landed, 2 * S::Queries::kBytes);
      w.q(0).copy(maps.q, column, at.rows.first + at.row, landed);
      w.d_o(0).copy(maps.d_o, column, at.rows.first + at.row, landed);
    };
    ptx::Barrier* const full = w.ring().full_of(0);  // every lane arrives with its numbers
    if (valid >= kQueries && lane == 0) {
      start(full);
    } else {
      if (valid < kQueries) {
        if (lane == 0) start(w.cut());
        ptx::barrier_wait(w.cut(), cuts++ & 1);  // rows behind this sequence may not be finite: 0 · NaN is NaN
        w.q(0).clear_from(valid), w.d_o(0).clear_from(valid);
        ptx::fence_async();
        __syncwarp();  // no lane is so late that it looks for a phase behind
      }
      ptx::barrier_arrive(full);
    }
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
__device__ __forceinline__ void gather(Work& w, const AttentionBackward<bf16>& a, int group) {
  const int row = 64 * group + warp_of_block() % 4 * 16, t = lane_of_warp() % 4;
  const float scale = a.scale * kLog2e, kept_scale = keep_scale(a.dropout);
  Fragment<D / 8> dk{}, dv{};
  Fragment<kQueries / 8> s{}, ds{};
  std::uint32_t p[kQueries / 16][4], dp[kQueries / 16][4], k[D / 16][4], v[D / 16][4];
  w.ring_k().wait_full(0);
  if constexpr (!kDropout) {
#pragma unroll
    for (int i = 0; i < D / 16; ++i) w.k().registers(k[i], row, 16 * i), w.v().registers(v[i], row, 16 * i);
  }
  QueryTiles at{a.queries, w.key_sequence};
  const auto start_scores = [&] {
    w.ring().wait_full(0);
    if constexpr (kDropout) {  // the mask needs the registers
      product_of_rows<kQueries, D>(s, w.k(), 64 * group, w.q(0));
      product_of_rows<kQueries, D>(ds, w.v(), 64 * group, w.d_o(0));
    } else {
      product_of_rows<kQueries, D>(s, k, w.q(0));
      product_of_rows<kQueries, D>(ds, v, w.d_o(0));
    }
  };
  // Weights in s before dropout; kept ones, rounded, in p when the products before have run.
  TransposedStrip keep;
  const auto weigh = [&] {
    const QueryNumbers& n = w.numbers(0);
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
  const auto differentiate = [&] {
    const QueryNumbers& n = w.numbers(0);
    add_product<D, kQueries>(dv, p, w.d_o(0));
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
    start_scores();
    weigh();
    differentiate();
    while (at.next()) {
      ++w.tiles_before;
      start_scores();
      add_product<D, kQueries>(dk, dp, w.q(-1));
      weigh();
      w.ring().release(-1);
      differentiate();
    }
    add_product<D, kQueries>(dk, dp, w.q(0));
    ptx::wgmma_wait<0>();
    ptx::wgmma_done(dk);
    w.ring().release(0);
    ++w.tiles_before;
  }
  w.ring_k().release(0);
  const float by_scale[2] = {a.scale, a.scale}, by_one[2] = {1, 1};
  if (a.dk) store_rows<D>(head_rows(a.dk.to, w.keys.first, w.head, D), w.first + row, w.keys.length, dk, by_scale, a.dk.into);
  if (a.dv) store_rows<D>(head_rows(a.dv.to, w.keys.first, w.head, D), w.first + row, w.keys.length, dv, by_one, a.dv.into);
}

// attention_key_gradient_sm90_kernel: one block computes dk and dv of 128 keys of one head, over all query sequences that read them, and
// then of the next.
// in   q, k, v, d_o (tokens, H·D) bf16, lse, delta (H, tokens), mask      out  dk, dv (tokens, H·D)
// grid (multiprocessors)   block 384   shared Shape::kShared
// deterministic: queries in order; keys that nobody reads get 0
template <bool kDropout>
__global__ void __launch_bounds__(kThreads, 1)
    attention_key_gradient_sm90_kernel(const AttentionBackward<bf16> a, const KeptBits bits, const __grid_constant__ Maps maps,
                                       const __grid_constant__ Shares shares) {
  Work w{aligned_shared(), {shares}};
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;  // −1 copies
  if (threadIdx.x == 0) {
    w.ring().init(4 * kReaders, kWarpSize), w.ring_k().init(4 * kReaders);
    ptx::barrier_init(w.cut(), 1);
    ptx::barrier_init_done();
  }
  __syncthreads();
  if (group < 0) {
    ptx::registers_give<kGiven>();
    if (threadIdx.x >= kWarpSize) return;
    for (int cuts = 0; w.next();) bring<kDropout>(w, a, bits, maps, cuts);
  } else {
    ptx::registers_take<kTaken>();
    while (w.next()) {
      if (w.has_rows_for(group)) {
        gather<kDropout>(w, a, group);
      } else {
        w.ring_k().pass(0);
        for (QueryTiles at{a.queries, w.key_sequence}; at.next(); ++w.tiles_before) w.ring().pass(0);
      }
    }
  }
}

template <bool kDropout>
void run(const Queue& queue, const AttentionBackward<bf16>& a, const KeptBits& bits) {
  static_assert(kRows == 128);
  const Shares shares = shares_of(queue, a.keys.blocks_of_128, a.heads, kReaders);
  const Maps maps{map_of(a.q, kQueries), map_of(a.k, kRows), map_of(a.v, kRows), map_of(a.d_o, kQueries)};
  launch("attention_key_gradient_sm90_kernel", attention_key_gradient_sm90_kernel<kDropout>,
         {dim3(shares.at_once), dim3(kThreads), Shape::kShared}, queue, a, bits, maps, shares);
}

}  // namespace

void attention_key_gradient(const Queue& queue, const AttentionBackward<bf16>& a, const KeptBits* mask) {
  mask ? run<true>(queue, a, *mask) : run<false>(queue, a, {});
}

}  // namespace lc::cuda::sm90
