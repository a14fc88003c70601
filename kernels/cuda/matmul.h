// What other words need of matmul inside the CUDA half.
#pragma once
#include "kernels/kernels.h"

namespace lc::cuda {

// c (m, n) = or += a b, or aᵀ b, in float: a is (m, k), or stored (k, m); b is (k, n).
template <class T>
struct FloatProduct {
  kernels::Rows<const T> a, b;
  bool a_transposed = false;
  kernels::Rows<float> c;
  kernels::Into into = kernels::Into::write;
};
template <class T>
void float_product(const Queue& queue, const FloatProduct<T>& p);

}  // namespace lc::cuda
