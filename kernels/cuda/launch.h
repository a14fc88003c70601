// The one place that starts a kernel: names it, asks for its shared memory, checks. No triple brackets, so a .cu file is also valid C++.
#pragma once
#include <ptx.cuh>
#include <stdexcept>
#include <string>

#include "kernels/kernels.h"

namespace lc::cuda {

inline void check(const char* what, cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": CUDA: " + cudaGetErrorString(error));
}
inline cudaStream_t stream_of(const Queue& queue) { return static_cast<cudaStream_t>(queue.stream); }

inline int multiprocessors(const Queue& queue) {
  int count = 0;
  check("multiprocessors", cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, queue.index));
  return count;
}

constexpr std::int64_t ceil_div(std::int64_t n, std::int64_t d) { return (n + d - 1) / d; }

struct Grid {
  dim3 blocks, threads;    // blocks.x up to 2³¹ − 1, blocks.y and blocks.z up to 65,535
  std::size_t shared = 0;  // bytes of dynamic shared memory
};

// Nothing happens on an empty grid: zero rows start nothing.
template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const Grid& grid, const Queue& queue, const A&... arguments) {
  constexpr std::size_t kSharedWithoutAsking = 48 * 1024;
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  ptx::name_launch(name);
  if (grid.shared > kSharedWithoutAsking)
    check(name, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared)));
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks, config.blockDim = grid.threads, config.dynamicSmemBytes = grid.shared, config.stream = stream_of(queue);
  check(name, cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...));
}

}  // namespace lc::cuda
