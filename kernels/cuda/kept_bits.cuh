// Attention's mask as bits, drawn once for both kernels of backward, which would each draw it anew: a bit a score, in the order in which
// the lanes of a warp own a strip of 16 queries × 64 keys (bit 8·e + 7 − j of lane l for element e of fragment j, see numeric.h).
#pragma once
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/scratch.h"

namespace lc::cuda {

struct KeptBits {  // (heads, strips, key blocks, 32)
  std::uint32_t* words = nullptr;
  std::int64_t strips = 0;
  int key_blocks = 0;  // even, so that tiles of 128 keys can be read whole

  // Strips of a sequence follow each other; no two sequences share one.
  static __device__ __forceinline__ std::int64_t strip_of(const kernels::PackingView& queries, std::int64_t sequence, int row) {
    return queries.offsets[sequence] / 16 + sequence + row / 16;
  }
  __device__ __forceinline__ std::uint32_t* at(int head, std::int64_t strip, int key_block) const {
    return words + ((head * strips + strip) * key_blocks + key_block) * kWarpSize;
  }
};

// A lane's 32 bits of a strip.
__device__ __forceinline__ std::uint32_t kept_bits(const KeepStrip& strip) {
  const BytesBelow below(strip.threshold);
  std::uint32_t kept = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j) kept |= (below(strip.bits[j / 4].word[j % 4]) & 0x80808080u) >> j;
  return kept;
}
__device__ __forceinline__ bool keeps(std::uint32_t kept, int j, int e) { return kept & 1u << (8 * e + 7 - j); }

// Draws the mask of all strips of `a`, and owns the words.
struct KeptBitsRoom {
  KeptBitsRoom(const Queue& queue, const kernels::AttentionBackward<bf16>& a);
  Scratch<std::uint32_t> words;
  KeptBits bits;
};

}  // namespace lc::cuda
