#include "kernels/cuda/kept_bits.cuh"

namespace lc::cuda {
namespace {

// attention_kept_bits_kernel: one warp draws a strip of 16 queries for all its keys, 64 at a time.
// out  words (heads, strips, key blocks, 32)
// grid (strips / 4, H)   block 128   shared none
__global__ void __launch_bounds__(kAttentionThreads)
    attention_kept_bits_kernel(kernels::PackingView queries, kernels::PackingView keys, Dropout dropout, KeptBits bits) {
  const kernels::Strip strip = queries.strips.all[static_cast<std::int64_t>(blockIdx.x) * kAttentionWarps + warp_of_block()];
  if (strip.sequence < 0) return;
  const int head = static_cast<int>(blockIdx.y), length = span_of(keys, keys_of(queries, strip.sequence)).length;
  const std::uint64_t key = queries.keys[strip.sequence];
  std::uint32_t* const to = bits.at(head, KeptBits::strip_of(queries, strip.sequence, strip.first_row), 0) + lane_of_warp();
  KeepStrip keep;
  keep.threshold = keep_threshold(dropout, key, head, strip.first_row / 16);
  for (int first = 0; first < length; first += kTile) {
    draw(keep, dropout, {key, head, strip.first_row, first});
    to[first / kTile * kWarpSize] = kept_bits(keep);
  }
}

std::int64_t strips_of(const kernels::PackingView& queries) { return queries.tokens / 16 + queries.sequences; }
int key_blocks_of(const kernels::PackingView& keys) { return static_cast<int>(2 * ceil_div(keys.longest, 2 * kTile)); }

}  // namespace

KeptBitsRoom::KeptBitsRoom(const Queue& queue, const kernels::AttentionBackward<bf16>& a)
    : words(queue, a.heads * strips_of(a.queries) * key_blocks_of(a.keys) * kWarpSize),
      bits{words.get(), strips_of(a.queries), key_blocks_of(a.keys)} {
  const Grid grid{dim3(static_cast<unsigned>(a.queries.strips.count / kAttentionWarps), static_cast<unsigned>(a.heads)),
                  dim3(kAttentionThreads)};
  launch("attention_kept_bits_kernel", attention_kept_bits_kernel, grid, queue, a.queries, a.keys, a.dropout, bits);
}

}  // namespace lc::cuda
