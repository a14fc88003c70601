// The activations and their gradients. NaN stays NaN: max(x, 0) would make 0 of it.
#pragma once
#include <ptx.cuh>

#include "kernels/kernels.h"

namespace lc::cuda {

__device__ __forceinline__ float activate(kernels::Activation activation, float x) {
  constexpr float kSqrtHalf = 0.70710678118654752f;
  if (activation == kernels::Activation::relu) return x <= 0 ? 0.0f : x;
  return activation == kernels::Activation::gelu ? 0.5f * x * (1.0f + erff(x * kSqrtHalf)) : x;
}
// dx; kept: y for relu, the pre-activation for gelu.
__device__ __forceinline__ float activation_gradient(kernels::Activation activation, float kept, float dy) {
  constexpr float kSqrtHalf = 0.70710678118654752f, kDensity = 0.39894228040143268f;  // √½, 1/√2π
  if (activation == kernels::Activation::relu) return kept <= 0 ? 0.0f : dy;
  if (activation == kernels::Activation::none) return dy;
  return dy * (0.5f * (1.0f + erff(kept * kSqrtHalf)) + kept * kDensity * expf(-0.5f * kept * kept));
}

}  // namespace lc::cuda
