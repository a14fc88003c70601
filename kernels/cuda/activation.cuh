// The activations and their slopes, for matmul's epilogue and for their gradients.
#pragma once
#include <ptx.cuh>

#include "kernels/kernels.h"

namespace lc::cuda {

__device__ __forceinline__ float activate(kernels::Activation activation, float x) {
  constexpr float kSqrtHalf = 0.70710678118654752f;
  if (activation == kernels::Activation::relu) return x > 0 ? x : 0.0f;
  return activation == kernels::Activation::gelu ? 0.5f * x * (1.0f + erff(x * kSqrtHalf)) : x;
}
// kept: y for relu, the pre-activation for gelu.
__device__ __forceinline__ float activation_slope(kernels::Activation activation, float kept) {
  constexpr float kSqrtHalf = 0.70710678118654752f, kDensity = 0.39894228040143268f;  // √½, 1/√2π
  if (activation == kernels::Activation::relu) return kept > 0 ? 1.0f : 0.0f;
  if (activation == kernels::Activation::none) return 1.0f;
  return 0.5f * (1.0f + erff(kept * kSqrtHalf)) + kept * kDensity * expf(-0.5f * kept * kept);
}

}  // namespace lc::cuda
