// Dropout of hidden states (numeric.h, hidden_bits): one call of Philox serves 16 neighbouring columns of a row.
#pragma once
#include <ptx.cuh>

#include "kernels/kernels.h"

namespace lc::cuda {

struct HiddenRow {  // what is the same for all columns of a row
  std::uint64_t sequence;
  std::uint32_t threshold;
  int row;
};
__device__ __forceinline__ HiddenRow hidden_row(const Dropout& d, const kernels::PackingView& packing, std::int64_t token) {
  const std::int32_t b = packing.sequence_of[token];
  const int row = static_cast<int>(token - packing.offsets[b]);
  return {packing.keys[b], keep_threshold(d, packing.keys[b], 0, row / 16), row};
}

// The same for tokens in rising order: a warp looks up only what changes.
struct HiddenRows {
  HiddenRow row{};
  std::int64_t sequence = -1, first = 0;
  int block = -1;

  __device__ __forceinline__ const HiddenRow& at(const Dropout& d, const kernels::PackingView& packing, std::int64_t token,
                                                 std::int32_t sequence_of_token) {
    if (sequence != sequence_of_token) {
      sequence = sequence_of_token, first = packing.offsets[sequence], block = -1;
      row.sequence = packing.keys[sequence];
    }
    row.row = static_cast<int>(token - first);
    if (row.row / 16 != block) block = row.row / 16, row.threshold = keep_threshold(d, row.sequence, 0, block);
    return row;
  }
};

// x[0 … N) are columns `column` … of the row; 16 of them, or one.
template <int N>
__device__ __forceinline__ void drop(float (&x)[N], const Dropout& d, const HiddenRow& row, std::int64_t column) {
  static_assert(N == 16 || N == 1);
  const Philox bits = hidden_bits(d, row.sequence, row.row, static_cast<int>(column / 16));
  const float scale = keep_scale(d);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int place = N == 16 ? i : static_cast<int>(column % 16);
    x[i] = (bits.word[place / 4] >> (8 * (place % 4)) & 0xffu) < row.threshold ? x[i] * scale : 0.0f;
  }
}

}  // namespace lc::cuda
