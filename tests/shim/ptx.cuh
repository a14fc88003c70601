// The twin of kernels/cuda/ptx/ptx.cuh: the same functions by software, with the lane layouts of the PTX ISA
// ("Matrix fragments for mma.m16n8k16 with floating point type", "ldmatrix").
#pragma once
#include <cuda_runtime.h>

#include "kernels/numeric.h"

namespace lc::ptx {

inline void name_launch(const char* name) { shim::kernel_name = name; }

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(shim::dynamic_shared());
}
inline void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                     shim::Site site = shim::Site::current()) {
  std::uint32_t in[10] = {a[0], a[1], a[2], a[3], b0, b1};
  std::memcpy(in + 6, c, 16);
  const shim::Slot& s = shim::collective(shim::WarpOp::mma, in, sizeof in, shim::mma_all, site);
  std::memcpy(c, s.out[shim::lane()], 16);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, shim::Site site = shim::Site::current()) {
  const shim::Slot& s = shim::collective(shim::WarpOp::ldmatrix, &row, sizeof row, shim::ldmatrix_all, site);
  std::memcpy(r, s.out[shim::lane()], 16);
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row, shim::Site site = shim::Site::current()) {
  const shim::Slot& s = shim::collective(shim::WarpOp::ldmatrix, &row, sizeof row, shim::ldmatrix_trans_all, site);
  std::memcpy(r, s.out[shim::lane()], 16);
}
inline void copy_async_16(void* shared, const void* global, bool valid) { shim::copy_async(shared, global, valid ? 16 : 0); }
inline void copy_async_commit() { shim::copy_async_commit(); }
template <int kOpen>
void copy_async_wait() {
  shim::copy_async_wait(kOpen);
}
inline std::uint32_t pack_bf16(float low, float high) {
  return from_float<bf16>(low).bits | static_cast<std::uint32_t>(from_float<bf16>(high).bits) << 16;
}
template <int kPair>
std::uint32_t byte_signs(std::uint32_t x) {
  return (x >> (16 * kPair + 7) & 1u) * 0xffffu | (x >> (16 * kPair + 15) & 1u) * 0xffff0000u;
}
inline void forget(std::uint64_t&) {}
inline void forget(std::uint32_t&) {}
inline float exp2(float x) { return std::exp2(x); }

}  // namespace lc::ptx
