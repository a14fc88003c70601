// Attention backward on Hopper, as the portable one in two kernels without atomics. The mask is drawn once for both (kept_bits.cuh).
#include "kernels/cuda/kept_bits.cuh"
#include "kernels/cuda/sm90/attention.h"
#include "kernels/cuda/sm90/tile.cuh"

namespace lc::cuda::sm90 {

bool attention_backward(const Queue& queue, const kernels::AttentionBackward<bf16>& a) {
  constexpr int kWidth = 64;  // of a head; of 128 wide ones dk and dv do not fit the registers
  if (!chosen(queue) || a.q.rows == 0 || a.k.rows == 0 || a.q.columns / a.heads != kWidth) return false;
  const auto run = [&](const KeptBits* mask) {
    if (a.dk || a.dv) attention_key_gradient(queue, a, mask);
    if (a.dq) attention_query_gradient(queue, a, mask);
  };
  if (a.dropout.rate > 0) {
    const KeptBitsRoom room(queue, a);
    run(&room.bits);
  } else {
    run(nullptr);
  }
  return true;
}

}  // namespace lc::cuda::sm90
