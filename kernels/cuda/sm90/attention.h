// Attention by Hopper's own instructions (wgmma, bulk tensor copies, producer and consumer warpgroups), beside the portable kernels.
#pragma once
#include "kernels/kernels.h"

namespace lc::cuda::sm90 {

// False, and nothing done, where the path is not chosen (tile.cuh, chosen) or the heads are not 64 or 128 wide. Rows fit tiles.
bool attention_forward(const Queue& queue, const kernels::AttentionForward<bf16>& a);
// dq, dk, dv; the workspace holds Σ o · d_o.
bool attention_backward(const Queue& queue, const kernels::AttentionBackward<bf16>& a);

}  // namespace lc::cuda::sm90
