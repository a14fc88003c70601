// Attention by Hopper's own instructions (wgmma, bulk tensor copies, producer and consumer warpgroups), beside the portable kernels.
#pragma once
#include "kernels/kernels.h"

namespace lc::cuda {
struct KeptBits;
}
namespace lc::cuda::sm90 {

// False, and nothing done, where the path is not chosen (tile.cuh, chosen) or the heads are not 64 or 128 wide. Rows fit tiles.
bool attention_forward(const Queue& queue, const kernels::AttentionForward<bf16>& a);
// dq, dk, dv; the workspace holds Σ o · d_o.
bool attention_backward(const Queue& queue, const kernels::AttentionBackward<bf16>& a);
// Its two halves; the mask is null without dropout.
void attention_query_gradient(const Queue& queue, const kernels::AttentionBackward<bf16>& a, const KeptBits* mask);
void attention_key_gradient(const Queue& queue, const kernels::AttentionBackward<bf16>& a, const KeptBits* mask);

}  // namespace lc::cuda::sm90
