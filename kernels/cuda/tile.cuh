// bf16 tiles in shared memory and the fragments that mma.m16n8k16 takes from them.
// 16-byte chunks of a row are XORed with the row, so that eight consecutive rows of one chunk touch all 32 banks.
#pragma once
#include <ptx.cuh>

#include "kernels/kernels.h"

namespace lc::cuda {

// kRows × kColumns, kColumns a multiple of 32; `data` lies in dynamic shared memory, 16-byte aligned.
template <int kRows, int kColumns>
struct Tile {
  static_assert(kRows % 16 == 0 && kColumns % 32 == 0);
  static constexpr int kChunks = kColumns / 8, kElements = kRows * kColumns, kBytes = 2 * kElements;
  bf16* data;

  __device__ bf16* chunk(int row, int c) const {
    const int mixed = kColumns % 64 == 0 ? c ^ (row & 7) : c ^ ((row >> 1) & 3);
    return data + row * kColumns + mixed * 8;
  }
  // Row r of the tile becomes row r of `from`, zeros from `valid_rows` and from `valid_columns` (a multiple of 8) on. `from` is 16-byte
  // aligned, its stride a multiple of 8. All kThreads threads of the block take part; the caller commits, waits and synchronises.
  template <int kThreads>
  __device__ void load(const bf16* from, std::int64_t stride, int valid_rows, int valid_columns = kColumns) const {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += kThreads) {
      const int row = i / kChunks, c = i % kChunks;
      const bool valid = row < valid_rows && (valid_columns >= kColumns || c * 8 < valid_columns);
      ptx::copy_async_16(chunk(row, c), from + (valid ? row * stride + c * 8 : 0), valid);
    }
  }
  // The same by one warp alone.
  __device__ void load_by_warp(const bf16* from, std::int64_t stride, int valid_rows) const {
    for (int i = static_cast<int>(threadIdx.x) & 31; i < kRows * kChunks; i += 32) {
      const int row = i / kChunks, c = i % kChunks;
      ptx::copy_async_16(chunk(row, c), from + (row < valid_rows ? row * stride + c * 8 : 0), row < valid_rows);
    }
  }
  // A operand: rows row … row + 15, columns k … k + 15.
  __device__ void a(std::uint32_t (&r)[4], int row, int k) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    ptx::ldmatrix_x4(r, chunk(row + (lane & 15), k / 8 + (lane >> 4)));
  }
  // A operand of the transposed tile: its rows are columns m … m + 15, its k runs over rows k … k + 15.
  __device__ void a_columns(std::uint32_t (&r)[4], int m, int k) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    ptx::ldmatrix_x4_trans(r, chunk(k + (lane & 7) + ((lane >> 4) << 3), m / 8 + ((lane >> 3) & 1)));
  }
  // B operands of two products (r[0], r[1] and r[2], r[3]) whose n runs over tile rows n … n + 15 and k over columns k … k + 15.
  __device__ void b_rows(std::uint32_t (&r)[4], int n, int k) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    ptx::ldmatrix_x4(r, chunk(n + (lane & 7) + ((lane >> 4) << 3), k / 8 + ((lane >> 3) & 1)));
  }
  // B operands of two products whose k runs over tile rows k … k + 15 and n over columns n … n + 15.
  __device__ void b_columns(std::uint32_t (&r)[4], int k, int n) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    ptx::ldmatrix_x4_trans(r, chunk(k + (lane & 15), n / 8 + (lane >> 4)));
  }
};

// Sixteen rows of one warp against 8·N columns. With g = lane / 4 and t = lane mod 4, element e of s[j] is row g + 8·(e / 2),
// column 8·j + 2·t + e mod 2.
template <int N>
using Fragment = float[N][4];

// Two neighbouring fragments (16 columns) rounded to bf16 as the A operand of the next product.
__device__ __forceinline__ void a_of_fragments(std::uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = ptx::pack_bf16(left[0], left[1]), a[1] = ptx::pack_bf16(left[2], left[3]);
  a[2] = ptx::pack_bf16(right[0], right[1]), a[3] = ptx::pack_bf16(right[2], right[3]);
}

}  // namespace lc::cuda
