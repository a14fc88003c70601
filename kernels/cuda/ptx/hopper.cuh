// Hopper's own instructions: bulk tensor copies that complete on an mbarrier, products of a warpgroup, registers handed between warpgroups.
// For sm_90a only. Included as <hopper.cuh>: the include path decides between this and its twin, tests/shim/hopper.cuh.
#pragma once
#include <cuda.h>

#include <ptx.cuh>
#include <stdexcept>
#include <string>

namespace lc::ptx {

// ---- mbarrier: a phase is complete when all arrivals and all bytes expected in it have come; it then begins anew with the other parity
using Barrier = std::uint64_t;
__device__ __forceinline__ void barrier_init(Barrier* b, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void barrier_arrive(Barrier* b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
__device__ __forceinline__ void barrier_arrive_expecting(Barrier* b, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}
// Until the phase of this parity is complete; of a fresh barrier the phase before the first, of parity 1, is.
__device__ __forceinline__ void barrier_wait(Barrier* b, unsigned parity) {
  unsigned done;
  do {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(b)), "r"(parity)
                 : "memory");
  } while (!done);
}

// ---- bulk tensor copies
using TensorMap = CUtensorMap;  // made by tensor_map(), passed as const __grid_constant__
// The box whose first element is (row, column) of the matrix; rows outside of it are zero. `to` is a multiple of 1024 bytes.
__device__ __forceinline__ void copy_box(void* to, const TensorMap& map, int column, int row, Barrier* b) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
      "l"(&map), "r"(column), "r"(row), "r"(shared_address(b))
      : "memory");
}
// What this thread wrote to shared memory by ordinary stores is seen by products and bulk copies that others start after a barrier.
__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The tensor map of a row-major bf16 matrix and boxes of `rows` × 64, for copy_box. Base and stride are multiples of 16 bytes. On the host.
inline TensorMap tensor_map(const void* data, std::int64_t rows, std::int64_t columns, std::int64_t stride, int box_rows) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult state{};
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &state);
  if (error != cudaSuccess || found == nullptr) throw std::runtime_error("attention: the driver has no cuTensorMapEncodeTiled");
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {2 * static_cast<cuuint64_t>(stride)};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)}, steps[2] = {1, 1};
  TensorMap map{};
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found)(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw std::runtime_error("attention: cuTensorMapEncodeTiled: CUDA error " + std::to_string(result));
  return map;
}

// ---- registers of a warpgroup, in steps of 8
template <int kRegisters>
__device__ __forceinline__ void registers_give() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void registers_take() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- wgmma: 64 rows of a warpgroup, bf16 into float; runs until waited for, so neither d nor a in registers may be touched before
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kOpen>  // groups that may go on
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kOpen) : "memory");
}
// Between the wait and the first look at d: the compiler must not move the look before the wait.
template <int N>
__device__ __forceinline__ void wgmma_done(float (&d)[N][4]) {
#pragma unroll
  for (int j = 0; j < N; ++j) asm volatile("" : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])::"memory");
}
// A tile in shared memory with the 128-byte swizzle, for wgmma (PTX ISA, "Matrix-descriptor"): between groups of eight rows 1024 bytes,
// between panels of 64 columns `panel` bytes (read only where a row of the operand runs along a column of the tile).
// The lower half of it; the upper one is the same for all. 16 bytes further on it is one more.
__device__ __forceinline__ std::uint32_t wgmma_tile(const void* first, unsigned panel) {
  return (shared_address(first) >> 4 & 0x3fffu) | panel >> 4 << 16;
}
__device__ __forceinline__ std::uint64_t wgmma_descriptor(std::uint32_t tile) {
  return tile | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}
#define LC_F4(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
// d (64 × N) = or += a (64 × 16) · b (16 × N), a and b tiles whose rows are the operands' rows; kBColumns: b's rows are the tile's columns
template <int N, bool kBColumns>
__device__ __forceinline__ void wgmma(float (&d)[N / 8][4], std::uint32_t a, std::uint32_t b, bool add) {
  static_assert(N == 64 || N == 128);
  if constexpr (N == 64) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
        "%32, %33, p, 1, 1, 0, %35; }"
        : LC_F4(0), LC_F4(1), LC_F4(2), LC_F4(3), LC_F4(4), LC_F4(5), LC_F4(6), LC_F4(7)
        : "l"(wgmma_descriptor(a)), "l"(wgmma_descriptor(b)), "r"(static_cast<int>(add)), "n"(kBColumns ? 1 : 0));
  } else {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
        "%64, %65, p, 1, 1, 0, %67; }"
        : LC_F4(0), LC_F4(1), LC_F4(2), LC_F4(3), LC_F4(4), LC_F4(5), LC_F4(6), LC_F4(7), LC_F4(8), LC_F4(9), LC_F4(10), LC_F4(11),
          LC_F4(12), LC_F4(13), LC_F4(14), LC_F4(15)
        : "l"(wgmma_descriptor(a)), "l"(wgmma_descriptor(b)), "r"(static_cast<int>(add)), "n"(kBColumns ? 1 : 0));
  }
}
// The same with a in registers, laid out as for mma.
template <int N, bool kBColumns>
__device__ __forceinline__ void wgmma(float (&d)[N / 8][4], const std::uint32_t (&a)[4], std::uint32_t b, bool add) {
  static_assert(N == 64 || N == 128);
  if constexpr (N == 64) {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
        "{%32,%33,%34,%35}, %36, p, 1, 1, %38; }"
        : LC_F4(0), LC_F4(1), LC_F4(2), LC_F4(3), LC_F4(4), LC_F4(5), LC_F4(6), LC_F4(7)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(wgmma_descriptor(b)), "r"(static_cast<int>(add)), "n"(kBColumns ? 1 : 0));
  } else {
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %69, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
        "{%64,%65,%66,%67}, %68, p, 1, 1, %70; }"
        : LC_F4(0), LC_F4(1), LC_F4(2), LC_F4(3), LC_F4(4), LC_F4(5), LC_F4(6), LC_F4(7), LC_F4(8), LC_F4(9), LC_F4(10), LC_F4(11),
          LC_F4(12), LC_F4(13), LC_F4(14), LC_F4(15)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(wgmma_descriptor(b)), "r"(static_cast<int>(add)), "n"(kBColumns ? 1 : 0));
  }
}
#undef LC_F4

}  // namespace lc::ptx
