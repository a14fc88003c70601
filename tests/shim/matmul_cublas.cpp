// The twin of cuBLASLt: plain loops that take some shapes and refuse the others, so that every path of matmul.cu is walked.
#include "kernels/cuda/matmul_cublas.h"

#include "tests/shim/shim.h"

namespace lc::cuda {
namespace {

float at(const void* matrix, DType type, std::int64_t i) {
  return type == DType::bf16 ? to_float(static_cast<const bf16*>(matrix)[i]) : static_cast<const float*>(matrix)[i];
}
void put(void* matrix, DType type, std::int64_t i, float x) {
  if (type == DType::bf16)
    static_cast<bf16*>(matrix)[i] = from_float<bf16>(x);
  else
    static_cast<float*>(matrix)[i] = x;
}

}  // namespace

bool cublas_product(const Queue&, const CublasProduct& p) {
  shim::use_stream();
  if (p.k % 3 != 0 || p.m == 0 || p.n == 0 || p.k == 0) return false;
  for (std::int64_t m = 0; m < p.m; ++m) {
    for (std::int64_t n = 0; n < p.n; ++n) {
      float sum = p.into == kernels::Into::add ? at(p.c, p.out, m * p.c_stride + n) : 0.0f;
      for (std::int64_t k = 0; k < p.k; ++k) {
        sum += at(p.a, p.in, p.turn_a == Turn::none ? m * p.a_stride + k : k * p.a_stride + m) *
               at(p.b, p.in, p.turn_b == Turn::none ? k * p.b_stride + n : n * p.b_stride + k);
      }
      if (p.bias) sum += at(p.bias, p.out, n);
      if (p.activation == kernels::Activation::relu && sum < 0) sum = 0;
      put(p.c, p.out, m * p.c_stride + n, sum);
    }
  }
  return true;
}

}  // namespace lc::cuda
