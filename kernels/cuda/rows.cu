// Rows by index. rows_add sums the rows of one target in the order of i, in float, and rounds once; no atomics.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace lc::kernels {
namespace {

using cuda::ceil_div;
using cuda::kWarpSize;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;

// rows_take_kernel: one warp copies 32·N columns of one row.
// in   x (T, C), index (n)      out  y (n, C)
// grid (n / 4, C / 32N)   block 128   shared none
template <int N, class T>
__global__ void __launch_bounds__(kThreads) rows_take_kernel(RowsTake<T> a) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kWarps + cuda::warp_of_block();
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.y) * kWarpSize + cuda::lane_of_warp()) * N;
  if (i >= a.y.rows || c >= a.y.columns) return;
  using V = cuda::Vector<T, N>;
  *reinterpret_cast<V*>(a.y.row(i) + c) = *reinterpret_cast<const V*>(a.x.row(a.index[i]) + c);
}

// rows_add_kernel: the warp of the first i that names a target adds up 32·N columns of all rows that name it; the others leave.
// in   rows (n, C), index (n)      in and out  x (T, C)
// grid (n / 4, C / 32N)   block 128   shared none
// reads index once a warp, n²/32 words in all: n is the few thousand masked rows of a batch
template <int N, class T>
__global__ void __launch_bounds__(kThreads) rows_add_kernel(RowsAdd<T> a) {
  const std::int64_t n = a.rows.rows, first = static_cast<std::int64_t>(blockIdx.x) * kWarps + cuda::warp_of_block();
  if (first >= n) return;
  const int lane = cuda::lane_of_warp();
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.y) * kWarpSize + lane) * N;
  const std::int32_t target = a.index[first];
  float total[N] = {}, x[N];
  for (std::int64_t i = 0; i < n; i += kWarpSize) {
    unsigned named = __ballot_sync(cuda::kWholeWarp, i + lane < n && a.index[i + lane] == target);
    for (; named != 0; named &= named - 1) {  // ascending
      const std::int64_t r = i + __ffs(static_cast<int>(named)) - 1;
      if (r < first) return;
      if (c >= a.rows.columns) continue;
      if (r == first) cuda::load(total, a.x.to.row(target) + c);  // not before it is known that nobody else writes there
      cuda::load(x, a.rows.row(r) + c);
#pragma unroll
      for (int k = 0; k < N; ++k) total[k] += x[k];
    }
  }
  if (c < a.rows.columns) cuda::store(total, a.x.to.row(target) + c);
}

template <int N, class T>
__global__ void __launch_bounds__(kThreads) rows_clear_kernel(Rows<T> x) {  // grid and block as rows_take_kernel
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kWarps + cuda::warp_of_block();
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.y) * kWarpSize + cuda::lane_of_warp()) * N;
  if (i < x.rows && c < x.columns) cuda::store<N>({}, x.row(i) + c);
}

cuda::Grid grid_of(std::int64_t rows, std::int64_t columns, int n) {
  return {dim3(static_cast<unsigned>(ceil_div(rows, kWarps)), static_cast<unsigned>(ceil_div(columns, kWarpSize * n))), kThreads};
}

template <class T>
void take_on(const Queue& queue, const RowsTake<T>& a) {
  constexpr int kN = cuda::kWidest<T>;
  const bool wide = cuda::fits(a.x, kN) && cuda::fits(a.y, kN);
  cuda::launch("rows_take_kernel", wide ? rows_take_kernel<kN, T> : rows_take_kernel<1, T>, grid_of(a.y.rows, a.y.columns, wide ? kN : 1),
               queue, a);
}
template <class T>
void add_on(const Queue& queue, const RowsAdd<T>& a) {
  constexpr int kN = cuda::kWidest<T>;
  const Rows<T>& x = a.x.to;
  const bool wide = cuda::fits(x, kN) && cuda::fits(a.rows, kN);
  const auto clear = wide ? rows_clear_kernel<kN, T> : rows_clear_kernel<1, T>;
  const auto add = wide ? rows_add_kernel<kN, T> : rows_add_kernel<1, T>;
  const int n = wide ? kN : 1;
  if (a.x.into == Into::write) cuda::launch("rows_clear_kernel", clear, grid_of(x.rows, x.columns, n), queue, x);
  cuda::launch("rows_add_kernel", add, grid_of(a.rows.rows, x.columns, n), queue, a);
}

}  // namespace

template <>
void rows_take<Device::cuda, float>(Queue queue, const RowsTake<float>& a) {
  take_on(queue, a);
}
template <>
void rows_take<Device::cuda, bf16>(Queue queue, const RowsTake<bf16>& a) {
  take_on(queue, a);
}
template <>
void rows_add<Device::cuda, float>(Queue queue, const RowsAdd<float>& a) {
  add_on(queue, a);
}
template <>
void rows_add<Device::cuda, bf16>(Queue queue, const RowsAdd<bf16>& a) {
  add_on(queue, a);
}

}  // namespace lc::kernels
