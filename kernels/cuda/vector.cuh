// Several neighbouring numbers of a row at once: one memory transaction of up to 16 bytes, float arithmetic, one rounding.
#pragma once
#include <algorithm>
#include <ptx.cuh>

#include "kernels/kernels.h"

namespace lc::cuda {

template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  T of[N];
};

// p is aligned to N numbers (see fits).
template <int N, class T>
__device__ __forceinline__ void load(float (&x)[N], const T* p) {
  const Vector<T, N> v = *reinterpret_cast<const Vector<T, N>*>(p);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = to_float(v.of[i]);
}
template <int N>
__device__ __forceinline__ void store(const float (&x)[N], float* p) {
  Vector<float, N> v;
#pragma unroll
  for (int i = 0; i < N; ++i) v.of[i] = x[i];
  *reinterpret_cast<Vector<float, N>*>(p) = v;
}
template <int N>
__device__ __forceinline__ void store(const float (&x)[N], bf16* p) {
  if constexpr (N == 1) {
    *p = from_float<bf16>(x[0]);
  } else {
    Vector<std::uint32_t, N / 2> v;
#pragma unroll
    for (int i = 0; i < N / 2; ++i) v.of[i] = ptx::pack_bf16(x[2 * i], x[2 * i + 1]);
    *reinterpret_cast<Vector<std::uint32_t, N / 2>*>(p) = v;
  }
}

template <class... T>
constexpr int kWidest = 16 / static_cast<int>(std::max({sizeof(T)...}));  // numbers per transaction when all operands take part

// Whether every row of x can be cut into aligned vectors of n numbers.
template <class T>
bool fits(const kernels::Rows<T>& x, int n) {
  return x.columns % n == 0 && (x.stride % n == 0 || x.rows <= 1) &&
         reinterpret_cast<std::uintptr_t>(x.data) % (sizeof(T) * static_cast<unsigned>(n)) == 0;
}

}  // namespace lc::cuda
