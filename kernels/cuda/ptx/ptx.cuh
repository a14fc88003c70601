// The only inline assembly, and the few names whose software twin lies in tests/shim/ptx.cuh.
// Included as <ptx.cuh>: the include path decides which of the two is meant.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace lc::ptx {

inline void name_launch(const char*) {}  // the twin's messages say which kernel

// The block's dynamic shared memory, 16-byte aligned; its size is the launch's.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char lc_dynamic_shared[];
  return reinterpret_cast<T*>(lc_dynamic_shared);
}
__device__ __forceinline__ unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// c (16 × 8 float) += a (16 × 16 bf16) · b (16 × 8 bf16)
__device__ __forceinline__ void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Four 8 × 8 matrices of 16-bit elements; lanes 8m … 8m + 7 give the addresses of the rows of matrix m (16 bytes each).
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// 16 bytes from global to shared memory, in flight until waited for; zeros when not valid (global is then not read).
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kOpen>  // groups that may stay in flight
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
}
// Two floats rounded to nearest even, side by side.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
// All ones in a half where the upper bit of byte 2·kPair (the lower half) or 2·kPair + 1 (the upper one) is set, else zeros.
template <int kPair>
__device__ __forceinline__ std::uint32_t byte_signs(std::uint32_t x) {
  std::uint32_t r;
  asm("prmt.b32 %0, %1, %1, %2;" : "=r"(r) : "r"(x), "n"(kPair == 0 ? 0x9988 : 0xbbaa));
  return r;
}
// The compiler forgets what it knows of x: what follows from it is computed here, and takes no registers before.
__device__ __forceinline__ void forget(std::uint64_t& x) { asm volatile("" : "+l"(x)); }
__device__ __forceinline__ void forget(std::uint32_t& x) { asm volatile("" : "+r"(x)); }
__device__ __forceinline__ float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace lc::ptx
