// Attention's mask as bits, drawn once for both kernels of backward, which would each draw it anew: a bit a score, in the order in which
// the lanes of a warp own a strip of 16 queries × 64 keys (bit 4·j + e of lane l for element e of fragment j, see numeric.h).
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

// Which of the four bytes are below the threshold (1 … 255), as bits 7, 15, 23, 31. `low` is its lower 7 bits in every byte, `high` all
// ones when it is 128 or more.
__device__ __forceinline__ std::uint32_t bytes_below(std::uint32_t x, std::uint32_t low, std::uint32_t high) {
  const std::uint32_t t = (x | 0x80808080u) - low;
  return ((high & (~x | ~t)) | (~high & ~x & ~t)) & 0x80808080u;
}

// A lane's 32 bits of a strip.
__device__ __forceinline__ std::uint32_t kept_bits(const KeepStrip& strip) {
  if (strip.threshold == 0 || strip.threshold == 256) return strip.threshold == 0 ? 0u : ~0u;
  const std::uint32_t low = (strip.threshold & 0x7fu) * 0x01010101u, high = strip.threshold & 0x80u ? ~0u : 0u;
  std::uint32_t kept = 0;
#pragma unroll
  for (int j = 7; j >= 0; --j) {  // bits 7, 15, 23, 31 become the four upper ones
    kept = kept << 4 | (bytes_below(strip.bits[j / 4].word[j % 4], low, high) * 0x00204081u) >> 28;
  }
  return kept;
}

// Draws the mask of all strips of `a`, and owns the words.
struct KeptBitsRoom {
  KeptBitsRoom(const Queue& queue, const kernels::AttentionBackward<bf16>& a);
  Scratch<std::uint32_t> words;
  KeptBits bits;
};

}  // namespace lc::cuda
