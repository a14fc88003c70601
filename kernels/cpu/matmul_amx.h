// bf16 products on CPUs with tile instructions, through oneDNN's matmul primitives: bf16 in, float out.
#pragma once
#include "kernels/kernels.h"

namespace lc::kernels {

using FinishTile = void (*)(const Rows<const float>& product, const float* bias, Activation, const Rows<bf16>& y, const Rows<bf16>& pre);
using RoundInto = void (*)(const Rows<const float>&, const Rows<bf16>&, Into);

void linear_forward_amx(const LinearForward<bf16>&, FinishTile);
void linear_input_gradient_amx(const LinearInputGradient<bf16>&, RoundInto);
void linear_weight_gradient_amx(const LinearWeightGradient<bf16>&);  // dw only

}  // namespace lc::kernels
