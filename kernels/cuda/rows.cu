// Rows by index. rows_add sums the rows of one target in the order of i, in float, and rounds once; the only atomics are maxima of whole
// numbers, whatever comes first.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/scratch.h"
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

struct Ends {  // of the i that name a target: n − the first of them, the last + 1; 0: nobody does
  std::int32_t first_from_end, end;
};

// rows_ends_kernel: where each target is named.      in  index (n)      in and out  ends (T), before 0      grid (n / 128)   block 128
__global__ void __launch_bounds__(kThreads) rows_ends_kernel(const std::int32_t* index, std::int32_t n, Ends* ends) {
  const std::int32_t i = static_cast<std::int32_t>(blockIdx.x) * kThreads + static_cast<std::int32_t>(threadIdx.x);
  if (i >= n) return;
  atomicMax(&ends[index[i]].first_from_end, n - i);
  atomicMax(&ends[index[i]].end, i + 1);
}

// rows_add_kernel: the warp of the first i that names a target adds up 32·N columns of all rows that name it; the others leave.
// in   rows (n, C), index (n), ends (T)      in and out  x (T, C)
// grid (n / 4, C / 32N)   block 128   shared none
// looks through index from a target's first i to its last: masked rows differ, repeats are few (texts that cells of a batch share)
template <int N, class T>
__global__ void __launch_bounds__(kThreads) rows_add_kernel(RowsAdd<T> a, const Ends* ends) {
  const std::int64_t n = a.rows.rows, first = static_cast<std::int64_t>(blockIdx.x) * kWarps + cuda::warp_of_block();
  if (first >= n) return;
  const int lane = cuda::lane_of_warp();
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.y) * kWarpSize + lane) * N;
  const std::int32_t target = a.index[first];
  const std::int64_t end = ends[target].end;
  if (ends[target].first_from_end != n - first) return;
  float total[N] = {}, x[N];
  if (c < a.rows.columns) cuda::load(total, a.x.to.row(target) + c);
  for (std::int64_t i = first; i < end; i += kWarpSize) {
    unsigned named = __ballot_sync(cuda::kWholeWarp, i + lane < end && a.index[i + lane] == target);
    for (; named != 0; named &= named - 1) {  // ascending
      if (c >= a.rows.columns) continue;
      cuda::load(x, a.rows.row(i + __ffs(static_cast<int>(named)) - 1) + c);
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
  if (a.rows.rows == 0) return;
  const cuda::Scratch<Ends> ends(queue, x.rows);
  const std::size_t bytes = static_cast<std::size_t>(x.rows) * sizeof(Ends);
  cuda::clear(queue, ends.get(), {.width = bytes, .rows = 1, .to_step = bytes});
  const cuda::Grid by_index{dim3(static_cast<unsigned>(ceil_div(a.rows.rows, kThreads))), dim3(kThreads)};
  cuda::launch("rows_ends_kernel", rows_ends_kernel, by_index, queue, a.index, static_cast<std::int32_t>(a.rows.rows), ends.get());
  cuda::launch("rows_add_kernel", add, grid_of(a.rows.rows, x.columns, n), queue, a, static_cast<const Ends*>(ends.get()));
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
