// Rows of C columns by one warp, N columns a lane at a time; partial sums of a block in shared memory; sums of such partials in order.
#pragma once
#include <array>
#include <span>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace lc::cuda {

template <int N, class F>
__device__ __forceinline__ void for_columns(std::int64_t columns, F&& f) {
  for (std::int64_t c = lane_of_warp() * N; c < columns; c += kWarpSize * N) f(c);
}
// Where a lane keeps its own columns in shared memory: neighbouring lanes side by side, so that no two meet in a bank.
template <int N>
constexpr __host__ __device__ std::int64_t slots(std::int64_t columns) {
  return (columns + kWarpSize * N - 1) / (kWarpSize * N) * (kWarpSize * N);
}
template <int N>
__device__ __forceinline__ std::int64_t slot(std::int64_t column) {
  constexpr int kAtOnce = kWarpSize * N;
  return (column / kAtOnce * N + column % N) * kWarpSize + column % kAtOnce / N;
}

// The partial sums of three vectors (3, C) of a block: those of its warps, added in order.
template <int N, int kWarps>
__device__ __forceinline__ void put_partials(const float* shared, std::int64_t columns, float* partial) {
  const std::int64_t room = slots<N>(columns);
  for (std::int64_t i = static_cast<std::int64_t>(threadIdx.x); i < 3 * columns; i += kWarps * kWarpSize) {
    const std::int64_t at = i / columns * room + slot<N>(i % columns);
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[w * 3 * room + at];
    partial[i] = sum;
  }
}

struct Partials {  // (chunks, vectors, columns)
  const float* data;
  std::int64_t chunks, columns, vectors = 3;
};
// to[v][c] += sum over the chunks of vector v, in order; at most four vectors; null: not wanted.
void add_partials(const Queue& queue, const Partials& partials, std::span<float* const> to);

template <class T>
bool fits_vector(const T* p) {  // null too
  return reinterpret_cast<std::uintptr_t>(p) % (16 * sizeof(T)) == 0;
}
template <class T>
bool fits_rows(const kernels::Rows<T>& x) {
  return x.data == nullptr || fits(x, 16);
}

}  // namespace lc::cuda
