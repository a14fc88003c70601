// matmul through cuBLASLt, where a build has it; the launchers of matmul.cu take over what it refuses.
#pragma once
#include "kernels/kernels.h"

namespace lc::cuda {

enum class Turn : std::uint8_t { none, transpose };

// c (m, n) = or += op(a) · op(b), row-major, in float inside: op(a) is (m, k), op(b) is (k, n). Then bias and activation (none or ReLU).
struct CublasProduct {
  DType in = DType::f32, out = DType::f32;
  const void *a = nullptr, *b = nullptr;
  void* c = nullptr;
  std::int64_t m = 0, n = 0, k = 0, a_stride = 0, b_stride = 0, c_stride = 0;
  Turn turn_a = Turn::none, turn_b = Turn::none;
  kernels::Into into = kernels::Into::write;
  const void* bias = nullptr;  // (n), of the type of c: the library takes no other beside a bf16 result
  kernels::Activation activation = kernels::Activation::none;
};
bool cublas_product(const Queue& queue, const CublasProduct& p);  // false: it refuses, nothing was started

}  // namespace lc::cuda
