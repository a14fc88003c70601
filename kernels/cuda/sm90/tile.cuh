// Tiles and pipelines of the Hopper path: bulk copies bring panels of 64 columns, swizzled as wgmma reads them.
#pragma once
#include <algorithm>
#include <hopper.cuh>

#include "kernels/cuda/attention.cuh"

namespace lc::cuda::sm90 {

constexpr int kWarpgroup = 128, kPanel = 64;

// kRows × kColumns bf16, panel after panel; `data` lies at a multiple of 1024 bytes.
template <int kRows, int kColumns>
struct SwizzledTile {
  static_assert(kRows % 64 == 0 && kColumns % kPanel == 0);
  static constexpr int kElements = kRows * kColumns, kBytes = 2 * kElements, kPanelElements = kRows * kPanel;
  bf16* data;

  __device__ bf16* panel(int column) const { return data + column / kPanel * kPanelElements; }
  // By one thread, which has told the barrier to expect kBytes.
  __device__ void copy(const ptx::TensorMap& map, int column, std::int64_t row, ptx::Barrier* barrier) const {
#pragma unroll
    for (int c = 0; c < kColumns; c += kPanel) ptx::copy_box(panel(c), map, column + c, static_cast<int>(row), barrier);
  }
  // By one warp: rows from `valid` on become zero.
  __device__ void clear_from(int valid) const {
    for (int i = valid * (kPanel / 8) + lane_of_warp(); i < kRows * (kPanel / 8); i += kWarpSize) {
#pragma unroll
      for (int c = 0; c < kColumns; c += kPanel) *reinterpret_cast<Vector<std::uint32_t, 4>*>(panel(c) + 8 * i) = {};
    }
  }
  // Operand whose rows are the tile's rows `row` …, its k columns 0 … 15, and how much further on columns k … lie; `row` a multiple of 8.
  __device__ std::uint32_t rows(int row) const { return ptx::wgmma_tile(data + row * kPanel, 16); }
  static constexpr std::uint32_t columns_on(int k) { return static_cast<std::uint32_t>(k / kPanel * kPanelElements + k % kPanel) / 8; }
  // Operand whose rows are all columns of the tile, its k rows 0 … 15, and how much further on rows k … lie.
  __device__ std::uint32_t columns() const { return ptx::wgmma_tile(data, 2 * kPanelElements); }
  static constexpr std::uint32_t rows_on(int k) { return static_cast<std::uint32_t>(k * kPanel) / 8; }
  // The warp's rows `row` … row + 15, columns k … k + 15, in registers.
  __device__ void registers(std::uint32_t (&r)[4], int row, int k) const { Tile<kRows, kPanel>{panel(k)}.a(r, row, k % kPanel); }
};

// d (64 × N) = rows `row` … of a · bᵀ, in flight until waited for.
template <int N, int K, class A, class B>
__device__ __forceinline__ void product_of_rows(Fragment<N / 8>& d, const A& a, int row, const B& b) {
  std::uint32_t left = a.rows(row), right = b.rows(0);
  ptx::forget(left), ptx::forget(right);  // else every step's operands are kept in registers of their own
  ptx::wgmma_fence();
#pragma unroll
  for (int k = 0; k < K; k += 16) ptx::wgmma<N, false>(d, left + A::columns_on(k), right + B::columns_on(k), k > 0);
  ptx::wgmma_commit();
}
// The same with a in registers.
template <int N, int K, class B>
__device__ __forceinline__ void product_of_rows(Fragment<N / 8>& d, const std::uint32_t (&a)[K / 16][4], const B& b) {
  std::uint32_t right = b.rows(0);
  ptx::forget(right);
  ptx::wgmma_fence();
#pragma unroll
  for (int k = 0; k < K; k += 16) ptx::wgmma<N, false>(d, a[k / 16], right + B::columns_on(k), k > 0);
  ptx::wgmma_commit();
}
// d (64 × N) += a (64 × K, in registers) · b (K × N), in flight until waited for.
template <int N, int K, class B>
__device__ __forceinline__ void add_product(Fragment<N / 8>& d, const std::uint32_t (&a)[K / 16][4], const B& b) {
  std::uint32_t right = b.columns();
  ptx::forget(right);
  ptx::wgmma_fence();
#pragma unroll
  for (int k = 0; k < K; k += 16) ptx::wgmma<N, true>(d, a[k / 16], right + B::rows_on(k), true);
  ptx::wgmma_commit();
}
// Eight columns of a fragment, rounded, as one half of an operand in registers. Accumulators are read, never written: a write while other
// products run makes the compiler wait for those.
__device__ __forceinline__ void pack_half(std::uint32_t (&a)[4], int half, const float (&x)[4]) {
  a[2 * half] = ptx::pack_bf16(x[0], x[1]), a[2 * half + 1] = ptx::pack_bf16(x[2], x[3]);
}
template <int N>
__device__ __forceinline__ void pack(std::uint32_t (&a)[N / 16][4], const Fragment<N / 8>& s) {
#pragma unroll
  for (int k = 0; k < N / 16; ++k) a_of_fragments(a[k], s[2 * k], s[2 * k + 1]);
}

// kStages places that one warp fills and others empty, in turn; `before`: how many were filled before the first that is counted here.
template <int kStages>
struct Ring {
  ptx::Barrier *full, *empty;
  int before = 0;
  __device__ void init(int readers, int writers = 1) const {  // by one thread; what they arrive with
    for (int i = 0; i < kStages; ++i)
      ptx::barrier_init(full + i, static_cast<unsigned>(writers)), ptx::barrier_init(empty + i, static_cast<unsigned>(readers));
  }
  __device__ int place(int i) const { return (before + i) % kStages; }
  __device__ ptx::Barrier* full_of(int i) const { return full + place(i); }
  __device__ void wait_empty(int i) const { ptx::barrier_wait(empty + place(i), ((before + i) / kStages & 1) ^ 1); }
  __device__ void wait_full(int i) const { ptx::barrier_wait(full_of(i), (before + i) / kStages & 1); }
  __device__ void release(int i) const {  // by every warp that has read it
    __syncwarp();
    if (lane_of_warp() == 0) ptx::barrier_arrive(empty + place(i));
  }
  __device__ void pass(int i) const { wait_full(i), release(i); }  // by every warp that need not read it
};

// A multiprocessor computes many blocks of rows one after another, all heads of a row block side by side, so that the tiles of the next are
// on their way while the last one ends. Blocks lie from the most work on; every second round goes backwards, to make the shares alike.
// Where the last round has so few that all their pieces of 64 rows fit into it, each piece is a turn.
struct Shares {
  const kernels::Strip* blocks;
  int heads, whole, count;  // turns: those of whole blocks, all
  int pieces;
  unsigned at_once;
};
inline Shares shares_of(const Queue& queue, const kernels::RowBlocks& blocks, int heads, int pieces) {
  const int turns = static_cast<int>(blocks.count) * heads, at_once = std::min(turns, multiprocessors(queue));
  const int last = at_once == 0 ? 0 : turns % at_once;
  if (last * pieces > at_once) pieces = 1;
  return {blocks.all, heads, turns - last, turns + last * (pieces - 1), pieces, static_cast<unsigned>(at_once)};
}
struct Turns {
  const Shares& shares;
  int rounds = 0;

  __device__ bool next(kernels::Strip& block, int& head) {
    do {
      ++rounds;
      if (!current(block, head)) return false;
    } while (block.rows <= 0);
    return true;
  }
  // Asked again rather than kept: what is in use between takes registers that the products need.
  __device__ bool current(kernels::Strip& block, int& head) const {
    const unsigned at = rounds % 2 != 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
    int turn = static_cast<int>((rounds - 1) * gridDim.x + at);
    if (turn >= shares.count) return false;
    int piece = 0;
    if (turn >= shares.whole) piece = (turn - shares.whole) % shares.pieces, turn = shares.whole + (turn - shares.whole) / shares.pieces;
    block = shares.blocks[turn / shares.heads], head = turn % shares.heads;
    if (turn < shares.whole || shares.pieces == 1) return true;
    block.first_row += 64 * piece, block.token += 64 * piece;
    block.rows = min(block.rows - 64 * piece, 64);
    return true;
  }
};

// The block's dynamic shared memory from the first multiple of 1024 on; whoever asks for it asks for kAlignment bytes more.
constexpr std::size_t kAlignment = 1024;
__device__ __forceinline__ bf16* aligned_shared() {
  unsigned char* const p = ptx::dynamic_shared<unsigned char>();
  return reinterpret_cast<bf16*>(p + (kAlignment - ptx::shared_address(p) % kAlignment) % kAlignment);
}

bool chosen(const Queue& queue);  // a device of compute capability 9.0; not with LANGCELL_SM90=0
template <class T>
ptx::TensorMap map_of(const kernels::Rows<T>& x, int box_rows) {
  return ptx::tensor_map(x.data, x.rows, x.columns, x.stride, box_rows);
}

}  // namespace lc::cuda::sm90
