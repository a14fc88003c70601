// The twin of kernels/cuda/ptx/hopper.cuh: mbarriers, bulk tensor copies and wgmma by software, with the layouts of the PTX ISA
// ("Asynchronous warpgroup level matrix", "Swizzling modes"). A copy lands as late as its barrier allows, a product when it is waited for.
#pragma once
#include <ptx.cuh>

#include "tests/shim/hopper.h"

#define __grid_constant__

namespace lc::ptx {

using Barrier = std::uint64_t;
inline void barrier_init(Barrier* b, unsigned arrivals) { shim::barrier_init(b, static_cast<int>(arrivals)); }
inline void barrier_init_done() {}
inline void barrier_arrive(Barrier* b) { shim::barrier_arrive(b, 0); }
inline void barrier_arrive_expecting(Barrier* b, unsigned bytes) { shim::barrier_arrive(b, bytes); }
inline void barrier_wait(Barrier* b, unsigned parity, shim::Site site = shim::Site::current()) { shim::barrier_wait(b, parity, site); }

using TensorMap = shim::TensorMap;
inline TensorMap tensor_map(const void* data, std::int64_t rows, std::int64_t columns, std::int64_t stride, int box_rows) {
  return shim::tensor_map(data, rows, columns, stride, box_rows);
}
inline void copy_box(void* to, const TensorMap& map, int column, int row, Barrier* b) { shim::copy_box(to, map, column, row, b); }
inline void fence_async() {}

template <int kRegisters>
void registers_give() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}
template <int kRegisters>
void registers_take() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}

inline unsigned shared_address(const void* p) { return shim::shared_address(p); }
inline void wgmma_fence() { shim::wgmma_fence(); }
inline void wgmma_commit() { shim::wgmma_commit(); }
template <int kOpen>
void wgmma_wait() {
  shim::wgmma_wait(kOpen);
}
template <int N>
void wgmma_done(float (&d)[N][4], shim::Site site = shim::Site::current()) {
  shim::wgmma_done(&d[0][0], site);
}
// As the hardware's: address / 16, panel / 16, 1024 / 16, the 128-byte swizzle.
inline std::uint32_t wgmma_tile(const void* first, unsigned panel) {
  return (shim::shared_address(first) >> 4 & 0x3fffu) | panel >> 4 << 16;
}
inline std::uint64_t wgmma_descriptor(std::uint32_t tile) { return tile | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62; }
template <int N, bool kBColumns>
void wgmma(float (&d)[N / 8][4], std::uint32_t a, std::uint32_t b, bool add, shim::Site site = shim::Site::current()) {
  shim::wgmma({&d[0][0], N, kBColumns, add, wgmma_descriptor(a), nullptr, wgmma_descriptor(b)}, site);
}
template <int N, bool kBColumns>
void wgmma(float (&d)[N / 8][4], const std::uint32_t (&a)[4], std::uint32_t b, bool add, shim::Site site = shim::Site::current()) {
  shim::wgmma({&d[0][0], N, kBColumns, add, 0, a, wgmma_descriptor(b)}, site);
}

}  // namespace lc::ptx
