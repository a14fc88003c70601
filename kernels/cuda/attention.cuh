// What forward and backward of attention share: products of tiles, the mask of a strip of 16 queries × 32 keys, rows of one head.
// The mask lies in the layout of mma.m16n8k16's accumulators (numeric.h, attention_bits): one call of Philox a lane and strip.
#pragma once
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/vector.cuh"

namespace lc::cuda {

constexpr int kTile = 64;                                                            // queries and keys of a block
constexpr int kAttentionWarps = 4, kAttentionThreads = kAttentionWarps * kWarpSize;  // a warp owns 16 rows

template <int D>
using HeadTile = Tile<kTile, D>;
using ScoreTile = Tile<kTile, kTile>;

struct Span {  // rows of one sequence
  std::int64_t first = 0;
  int length = 0;
};
__device__ __forceinline__ Span span_of(const kernels::PackingView& packing, std::int64_t sequence) {
  const std::int32_t first = packing.offsets[sequence];
  return {first, packing.offsets[sequence + 1] - first};
}
// The sequence of a block as far as the block reaches.
__device__ __forceinline__ Span span_of(const kernels::Strip& block) {
  return {block.token - block.first_row, block.first_row + block.rows};
}
__device__ __forceinline__ std::int64_t keys_of(const kernels::PackingView& queries, std::int64_t sequence) {
  return queries.kv_of ? queries.kv_of[sequence] : sequence;
}

struct Readers {  // the strips that read a key sequence, those of a query sequence one after another
  const kernels::Strip *begin, *end;
};
__device__ __forceinline__ Readers readers_of(const kernels::Strips& strips, std::int64_t key_sequence) {
  const bool none = key_sequence >= strips.keys;
  return {strips.all + (none ? 0 : strips.of_keys[2 * key_sequence]), strips.all + (none ? 0 : strips.of_keys[2 * key_sequence + 1])};
}

// One head of rows that begin with `first` of the packing.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t stride;
  __device__ T* row(std::int64_t i) const { return data + i * stride; }
};
template <class T>
__device__ __forceinline__ HeadRows<T> head_rows(const kernels::Rows<T>& rows, std::int64_t first, int head, int width) {
  return {rows.data + first * rows.stride + head * width, rows.stride};
}

// s (16 × 64) = rows `row` … of a · bᵀ
template <int D, class Rows>
__device__ __forceinline__ void product_of_rows(Fragment<8>& s, const Rows& a, int row, const HeadTile<D>& b) {
#pragma unroll
  for (int j = 0; j < 8; ++j) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    std::uint32_t left[4], right[4];
    a.a(left, row, k);
#pragma unroll
    for (int n = 0; n < kTile; n += 16) {
      b.b_rows(right, n, k);
      ptx::mma_bf16(s[n / 8], left, right[0], right[1]);
      ptx::mma_bf16(s[n / 8 + 1], left, right[2], right[3]);
    }
  }
}
// o (16 × D) += s (16 × 64) · b (64 × D); `change` sees every operand, made of fragments j and j + 1, before it is multiplied.
template <int D, class Change>
__device__ __forceinline__ void add_product(Fragment<D / 8>& o, const Fragment<8>& s, const HeadTile<D>& b, const Change& change) {
#pragma unroll
  for (int k = 0; k < kTile; k += 16) {
    std::uint32_t left[4], right[4];
    a_of_fragments(left, s[k / 8], s[k / 8 + 1]);
    change(left, k / 8);
#pragma unroll
    for (int n = 0; n < D; n += 16) {
      b.b_columns(right, k, n);
      ptx::mma_bf16(o[n / 8], left, right[0], right[1]);
      ptx::mma_bf16(o[n / 8 + 1], left, right[2], right[3]);
    }
  }
}
template <int D>
__device__ __forceinline__ void add_product(Fragment<D / 8>& o, const Fragment<8>& s, const HeadTile<D>& b) {
  add_product<D>(o, s, b, [](std::uint32_t(&)[4], int) {});
}
// o (16 × D) += columns `column` … of aᵀ (64 × 64) · b (64 × D)
template <int D>
__device__ __forceinline__ void add_transposed_product(Fragment<D / 8>& o, const ScoreTile& a, int column, const HeadTile<D>& b) {
#pragma unroll
  for (int k = 0; k < kTile; k += 16) {
    std::uint32_t left[4], right[4];
    a.a_columns(left, column, k);
#pragma unroll
    for (int n = 0; n < D; n += 16) {
      b.b_columns(right, k, n);
      ptx::mma_bf16(o[n / 8], left, right[0], right[1]);
      ptx::mma_bf16(o[n / 8 + 1], left, right[2], right[3]);
    }
  }
}

// The warp's 16 rows of a tile from its fragments, rounded.
__device__ __forceinline__ void put_fragments(const ScoreTile& to, int row, const Fragment<8>& s) {
  const int lane = lane_of_warp(), g = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<std::uint32_t*>(to.chunk(row + g + 8 * half, j) + 2 * t) = ptx::pack_bf16(s[j][2 * half], s[j][2 * half + 1]);
    }
  }
}

// Rows row … row + 15 below `length` of one head, times a factor for each half of the rows; written or added to, rounded once.
template <int D>
__device__ __forceinline__ void store_rows(const HeadRows<bf16>& to, int row, int length, const Fragment<D / 8>& o,
                                           const float (&factor)[2], kernels::Into into) {
  const int lane = lane_of_warp(), g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + g + 8 * half;
    if (r >= length) continue;
    bf16* const at = to.row(r) + 2 * t;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      float x[2] = {o[j][2 * half] * factor[half], o[j][2 * half + 1] * factor[half]};
      if (into == kernels::Into::add) x[0] += to_float(at[8 * j]), x[1] += to_float(at[8 * j + 1]);
      *reinterpret_cast<std::uint32_t*>(at + 8 * j) = ptx::pack_bf16(x[0], x[1]);
    }
  }
}

// The mask of 16 queries (a row block) × 64 keys from `first_key` on, for this lane's elements of a Fragment<8>.
// The threshold belongs to the row block alone.
struct KeepStrip {
  Philox bits[2];
  std::uint32_t threshold = 0;
  __device__ __forceinline__ bool keeps(int j, int e) const { return (bits[j / 4].word[j % 4] >> (8 * e) & 0xffu) < threshold; }
};
// Which of a word's four bytes are below a threshold (0 … 256), four at a time: the upper bits of the result's bytes say so, its other
// bits nothing.
struct BytesBelow {
  std::uint32_t low, high;  // the threshold's lower seven bits in every byte, or 128 for 256; all ones when it is 128 or more
  __device__ __forceinline__ explicit BytesBelow(std::uint32_t threshold)
      : low(threshold == 256 ? 0x80808080u : (threshold & 0x7fu) * 0x01010101u), high(threshold >= 128 ? ~0u : 0u) {}
  __device__ __forceinline__ std::uint32_t operator()(std::uint32_t x) const {
    const std::uint32_t t = (x | 0x80808080u) - low;
    return (high & (~x | ~t)) | (~high & ~x & ~t);
  }
};
// Of a fragment's elements, rounded in pairs (ptx::pack_bf16), those stay whose byte's upper bit in `kept` is set; the others become zero.
__device__ __forceinline__ void drop_pairs(std::uint32_t& first, std::uint32_t& second, std::uint32_t kept) {
  first &= ptx::byte_signs<0>(kept), second &= ptx::byte_signs<1>(kept);
}
struct StripPlace {
  std::uint64_t sequence;
  int head, first_row, first_key;
};
__device__ __forceinline__ void draw(KeepStrip& strip, const Dropout& d, const StripPlace& at) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    strip.bits[half] = attention_bits(d, at.sequence, at.head, at.first_row / 16,
                                      attention_column_block_and_lane(at.first_key / 32 + half, lane_of_warp()));
  }
}
// The same for one element, by whoever has only that one.
__device__ __forceinline__ bool keeps(const Dropout& d, std::uint64_t sequence, int head, int row, int key) {
  const int lane = row % 8 * 4 + key % 8 / 2, byte = row % 16 / 8 * 2 + key % 2;
  const Philox bits = attention_bits(d, sequence, head, row / 16, attention_column_block_and_lane(key / 32, lane));
  return (bits.word[key % 32 / 8] >> (8 * byte) & 0xffu) < keep_threshold(d, sequence, head, row / 16);
}

// Whether 16 bytes can be moved at once from every row of every head.
template <class T>
bool fits_tiles(const kernels::Rows<T>& x) {
  return x.data == nullptr || fits(x, 8);
}

}  // namespace lc::cuda
