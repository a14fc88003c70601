// Products c (m, n) = Σ_k a(m, k) · b(n, k), whatever lies in rows and whatever in columns, with an epilogue that sees the results in
// registers, 16 × 64 at a time. On the tensor cores for bf16 whose rows are aligned to 16 bytes, on Hopper by its own instructions where
// both lie in rows; in float, element by element, otherwise.
#pragma once
#include "kernels/cuda/launch.h"
#include "kernels/cuda/product_strips.cuh"
#include "kernels/cuda/sm90/product.cuh"
#include "kernels/cuda/vector.cuh"

namespace lc::cuda {

// ---- on the tensor cores
constexpr int kBlockM = 128, kBlockN = 128, kDepth = 32, kStages = 4;
constexpr int kWarpM = 32, kWarpsM = kBlockM / kWarpM, kProductThreads = kWarpsM * (kBlockN / kStripColumns) * kWarpSize;

template <Stored S, int kRows>
struct Operand {  // kRows of m or n, kDepth of k
  static constexpr bool kByRows = S == Stored::rows;
  Tile<kByRows ? kRows : kDepth, kByRows ? kDepth : kRows> tile;
  static constexpr int kElements = kRows * kDepth;

  __device__ void load(const kernels::Rows<const bf16>& x, std::int64_t row, std::int64_t rows, std::int64_t k, std::int64_t k_end) const {
    const auto limit = [](std::int64_t left) { return static_cast<int>(left < 4096 ? left : 4096); };
    if constexpr (kByRows)
      tile.template load<kProductThreads>(x.data + row * x.stride + k, x.stride, limit(rows - row), limit(k_end - k));
    else
      tile.template load<kProductThreads>(x.data + k * x.stride + row, x.stride, limit(k_end - k), limit(rows - row));
  }
  __device__ void left(std::uint32_t (&r)[4], int m, int k) const {
    if constexpr (kByRows)
      tile.a(r, m, k);
    else
      tile.a_columns(r, m, k);
  }
  __device__ void right(std::uint32_t (&r)[4], int n, int k) const {
    if constexpr (kByRows)
      tile.b_rows(r, n, k);
    else
      tile.b_columns(r, k, n);
  }
};

// product_kernel: one block computes 128 × 128 results over a part of the depth; a warp owns 32 × 64 of them.
// in   a (m, k), b (n, k) bf16      out  what the epilogue does with them
// grid (n / 128, m / 128, parts)   block 256   shared 4·(128 + 128)·32·2 bytes
// moves a once per 128 columns, b once per 128 rows, three steps of the depth ahead
template <Stored A, Stored B, class E>
__global__ void __launch_bounds__(kProductThreads, 2)
    product_kernel(kernels::Rows<const bf16> a, kernels::Rows<const bf16> b, Extent extent, E epilogue) {
  using Left = Operand<A, kBlockM>;
  using Right = Operand<B, kBlockN>;
  bf16* const shared = ptx::dynamic_shared<bf16>();
  const auto left = [&](int i) { return Left{{shared + i % kStages * (Left::kElements + Right::kElements)}}; };
  const auto right = [&](int i) { return Right{{shared + i % kStages * (Left::kElements + Right::kElements) + Left::kElements}}; };
  const std::int64_t m = static_cast<std::int64_t>(blockIdx.y) * kBlockM, n = static_cast<std::int64_t>(blockIdx.x) * kBlockN;
  const std::int64_t k = static_cast<std::int64_t>(blockIdx.z) * extent.k_part;
  const std::int64_t k_end = k + extent.k_part < extent.k ? k + extent.k_part : extent.k;
  const int steps = static_cast<int>((k_end - k + kDepth - 1) / kDepth);
  const auto load = [&](int i) {
    if (i < steps) {
      left(i).load(a, m, extent.m, k + i * kDepth, k_end);
      right(i).load(b, n, extent.n, k + i * kDepth, k_end);
    }
    ptx::copy_async_commit();
  };
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) load(i);

  const int warp_m = warp_of_block() % kWarpsM * kWarpM, warp_n = warp_of_block() / kWarpsM * kStripColumns;
  Fragment<8> s[2]{};
  for (int i = 0; i < steps; ++i) {
    ptx::copy_async_wait<kStages - 2>();
    __syncthreads();
    load(i + kStages - 1);
#pragma unroll
    for (int depth = 0; depth < kDepth; depth += 16) {
      std::uint32_t x[2][4], y[4];
      left(i).left(x[0], warp_m, depth), left(i).left(x[1], warp_m + 16, depth);
#pragma unroll
      for (int column = 0; column < kStripColumns; column += 16) {
        right(i).right(y, warp_n + column, depth);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          ptx::mma_bf16(s[half][column / 8], x[half], y[0], y[1]);
          ptx::mma_bf16(s[half][column / 8 + 1], x[half], y[2], y[3]);
        }
      }
    }
  }
  ptx::copy_async_wait<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) epilogue(s[half], m + warp_m + 16 * half, n + warp_n);
}

// ---- in float
constexpr int kPlainTile = 64, kPlainDepth = 32, kPlainStride = kPlainDepth + 4, kPlainThreads = 128;

template <Stored S, class T>
__device__ __forceinline__ void load_plain(const kernels::Rows<const T>& x, std::int64_t row, std::int64_t rows, std::int64_t k,
                                           std::int64_t k_end, float* to) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kPlainTile * kPlainDepth; i += kPlainThreads) {
    const int r = S == Stored::rows ? i / kPlainDepth : i % kPlainTile, c = S == Stored::rows ? i % kPlainDepth : i / kPlainTile;
    const bool valid = row + r < rows && k + c < k_end;
    to[r * kPlainStride + c] = !valid ? 0.0f : S == Stored::rows ? to_float(x.row(row + r)[k + c]) : to_float(x.row(k + c)[row + r]);
  }
}

// product_plain_kernel: one block computes 64 × 64 results over a part of the depth, a warp 16 × 64, in the tensor cores' layout.
// in   a (m, k), b (n, k)      out  what the epilogue does with them
// grid (n / 64, m / 64, parts)   block 128   shared 2·64·36 floats
template <Stored A, Stored B, class T, class E>
__global__ void __launch_bounds__(kPlainThreads)
    product_plain_kernel(kernels::Rows<const T> a, kernels::Rows<const T> b, Extent extent, E epilogue) {
  float* const left = ptx::dynamic_shared<float>();
  float* const right = left + kPlainTile * kPlainStride;
  const std::int64_t m = static_cast<std::int64_t>(blockIdx.y) * kPlainTile, n = static_cast<std::int64_t>(blockIdx.x) * kPlainTile;
  const std::int64_t k = static_cast<std::int64_t>(blockIdx.z) * extent.k_part;
  const std::int64_t k_end = k + extent.k_part < extent.k ? k + extent.k_part : extent.k;
  const int row = warp_of_block() * kStripRows, g = lane_of_warp() / 4, t = lane_of_warp() % 4;
  Fragment<8> s{};
  for (std::int64_t at = k; at < k_end; at += kPlainDepth) {
    load_plain<A>(a, m, extent.m, at, k_end, left);
    load_plain<B>(b, n, extent.n, at, k_end, right);
    __syncthreads();
#pragma unroll 2
    for (int depth = 0; depth < kPlainDepth; depth += 4) {
      float x[2][4], y[4];
      cuda::load(x[0], left + (row + g) * kPlainStride + depth), cuda::load(x[1], left + (row + g + 8) * kPlainStride + depth);
#pragma unroll
      for (int column = 0; column < 16; ++column) {
        cuda::load(y, right + (column / 2 * 8 + 2 * t + column % 2) * kPlainStride + depth);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float& sum = s[column / 2][2 * half + column % 2];
#pragma unroll
          for (int i = 0; i < 4; ++i) sum = fmaf(x[half][i], y[i], sum);
        }
      }
    }
    __syncthreads();
  }
  epilogue(s, m + row, n);
}

struct ProductForm {  // of the kernel that will run
  bool tensor_cores;
  std::int64_t tile;
};
template <class T>
ProductForm product_form(const kernels::Rows<const T>& a, const kernels::Rows<const T>& b) {
  const bool tensor_cores = dtype_of<T> == DType::bf16 && fits(a, 8) && fits(b, 8);
  return {tensor_cores, tensor_cores ? kBlockM : kPlainTile};
}

// parts: of the depth, each seen by an epilogue of its own (blockIdx.z).
template <Stored A, Stored B, class T, class E>
void product(const char* name, const Queue& queue, const kernels::Rows<const T>& a, const kernels::Rows<const T>& b, Extent extent,
             std::int64_t parts, const E& epilogue) {
  const ProductForm form = product_form(a, b);
  extent.k_part = ceil_div(ceil_div(extent.k, parts), kDepth) * kDepth;
  const dim3 blocks(static_cast<unsigned>(ceil_div(extent.n, form.tile)), static_cast<unsigned>(ceil_div(extent.m, form.tile)),
                    static_cast<unsigned>(parts));
  if constexpr (dtype_of<T> == DType::bf16) {
    if constexpr (A == Stored::rows && B == Stored::rows) {
      if (form.tensor_cores && parts == 1 && sm90::chosen(queue)) return sm90::product(name, queue, a, b, extent, epilogue);
    }
    const Grid grid{blocks, dim3(kProductThreads),
                    kStages * (Operand<A, kBlockM>::kElements + Operand<B, kBlockN>::kElements) * sizeof(bf16)};
    if (form.tensor_cores) return launch(name, product_kernel<A, B, E>, grid, queue, a, b, extent, epilogue);
  }
  const Grid grid{blocks, dim3(kPlainThreads), 2 * kPlainTile * kPlainStride * sizeof(float)};
  launch(name, product_plain_kernel<A, B, T, E>, grid, queue, a, b, extent, epilogue);
}

}  // namespace lc::cuda
