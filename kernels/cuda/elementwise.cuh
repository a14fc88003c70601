// One f.at<N>(row, column) for every N columns of every row of some matrices of one shape: N is as wide as their alignment allows.
#pragma once
#include "kernels/cuda/launch.h"
#include "kernels/cuda/vector.cuh"

namespace lc::cuda {

constexpr int kElementThreads = 256;

// elementwise_kernel: every thread does N neighbouring columns of one row.
// in, out  what f names, each read and written once
// grid (rows · columns / N / 256)   block 256   shared none
template <int N, class F>
__global__ void __launch_bounds__(kElementThreads) elementwise_kernel(F f, std::int64_t vectors_per_row, std::int64_t vectors) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kElementThreads + threadIdx.x;
  if (i >= vectors) return;
  const std::int64_t row = vectors_per_row == vectors ? 0 : i / vectors_per_row;
  f.template at<N>(row, (i - row * vectors_per_row) * N);
}

// Rows that follow each other without gaps are one long row.
template <class T>
void join(kernels::Rows<T>& x) {
  x = {x.data, 1, x.rows * x.columns, x.rows * x.columns};
}

template <class F, class... T>
void for_elements(const char* name, const Queue& queue, const F& f, kernels::Rows<T>&... operand) {
  if (((operand.stride == operand.columns) && ...)) (join(operand), ...);
  const std::int64_t rows = std::max({operand.rows...}), columns = std::max({operand.columns...});
  constexpr int kN = kWidest<T...>;
  const bool wide = (fits(operand, kN) && ...);
  const std::int64_t per_row = wide ? columns / kN : columns, vectors = rows * per_row;
  const Grid grid{static_cast<unsigned>(ceil_div(vectors, kElementThreads)), kElementThreads};
  launch(name, wide ? elementwise_kernel<kN, F> : elementwise_kernel<1, F>, grid, queue, f, per_row, vectors);
}

}  // namespace lc::cuda
