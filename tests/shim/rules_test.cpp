// The shim's own rules: each is broken on purpose and must be named, with kernel, block and line.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"

namespace lc::cuda {
namespace {

constexpr unsigned kThreads = 64;

// What the launch of a kernel says, in either order of threads; "" when it says nothing.
template <class... P, class... A>
std::string said(void (*kernel)(P...), const Grid& grid, const A&... arguments) {
  std::string first;
  for (const auto order : {shim::Order::forward, shim::Order::reverse}) {
    shim::order = order;
    std::string text;
    try {
      launch("broken_kernel", kernel, grid, {}, arguments...);
    } catch (const std::exception& e) {
      text = e.what();
    }
    if (order == shim::Order::forward) first = text;
    EXPECT_EQ(first.empty(), text.empty()) << "one order sees it, the other does not: " << first << text;
  }
  shim::order = shim::Order::forward;
  return first;
}
#define EXPECT_SAID(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)
const Grid kOneBlock{dim3(1), dim3(kThreads), 1024};

__global__ void return_before_barrier_kernel(int* passed) {
  if (threadIdx.x % 2) return;
  __syncthreads();
  passed[threadIdx.x] = 1;
}
TEST(ShimRules, AThreadThatReturnedCountsAsArrived) {
  std::vector<int> passed(kThreads);
  EXPECT_EQ(said(return_before_barrier_kernel, kOneBlock, passed.data()), "");
  EXPECT_EQ(passed[0] + passed[1], 1);
}

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
TEST(ShimRules, TwoBarriersAtOnceAreNamedWithTheirLines) {
  const std::string text = said(divergent_barrier_kernel, kOneBlock);
  EXPECT_SAID(text, "broken_kernel block (0,0,0)");
  EXPECT_SAID(text, "divergent barrier");
  EXPECT_SAID(text, "rules_test.cpp:");
}

__global__ void half_a_shuffle_kernel(float* x) {
  if (threadIdx.x % 32 < 16) x[threadIdx.x] = __shfl_xor_sync(kWholeWarp, 1.0f, 1);
  __syncthreads();
}
TEST(ShimRules, LanesThatWaitForEverAreNamed) {
  std::vector<float> x(kThreads);
  EXPECT_SAID(said(half_a_shuffle_kernel, kOneBlock, x.data()), "no thread can go on");
}
__global__ void partial_mask_kernel() { __syncwarp(0xffff); }
TEST(ShimRules, PartialMasksAreRefused) { EXPECT_SAID(said(partial_mask_kernel, kOneBlock), "wanted the full warp mask"); }

__global__ void read_shared_kernel(float* x) { x[threadIdx.x] = ptx::dynamic_shared<float>()[threadIdx.x]; }
TEST(ShimRules, SharedAndDeviceMemoryBeginAsNaN) {
  std::vector<float> x(kThreads);
  EXPECT_EQ(said(read_shared_kernel, kOneBlock, x.data()), "");
  EXPECT_TRUE(std::isnan(x[0]) && std::isnan(x[63]));
  float* p = nullptr;
  check("cudaMalloc", cudaMalloc(reinterpret_cast<void**>(&p), 12));
  EXPECT_TRUE(std::isnan(p[0]) && std::isnan(p[2]));
  check("cudaFree", cudaFree(p));
}

#if !defined(__SANITIZE_ADDRESS__)  // which sees these by itself
__global__ void beyond_shared_kernel(int index) { ptx::dynamic_shared<volatile float>()[index] = 0; }
__global__ void beyond_device_kernel(volatile float* x) { x[3] = 0; }
template <class T>
__global__ void doubled_kernel(const T* x, T* y) {  // what lies behind is read, and goes back where it was
  constexpr int kBehind = 12 / sizeof(T);
  y[kBehind] = from_float<T>(2 * to_float(x[kBehind]));
}
__global__ void copied_kernel(const std::uint32_t* x, std::uint32_t* y) {  // eight words: two places can be marked alike by chance
  for (int i = 3; i < 11; ++i) y[i] = x[i];
}
TEST(ShimRules, WritesBehindMemoryAreNamed) {
  EXPECT_SAID(said(beyond_shared_kernel, kOneBlock, 256), "wrote behind its 1024 bytes of shared memory");
  void* p = nullptr;
  check("cudaMalloc", cudaMalloc(&p, 12));
  EXPECT_SAID(said(beyond_device_kernel, kOneBlock, static_cast<volatile float*>(p)), "wrote behind a piece of 12 bytes");
  void* q = nullptr;
  check("cudaMalloc", cudaMalloc(&q, 12));
  const auto* from = static_cast<const float*>(p);
  EXPECT_SAID(said(doubled_kernel<float>, kOneBlock, from, static_cast<float*>(p)), "wrote behind a piece of 12 bytes");
  EXPECT_SAID(said(doubled_kernel<bf16>, kOneBlock, static_cast<const bf16*>(p), static_cast<bf16*>(p)),
              "wrote behind a piece of 12 bytes");
  EXPECT_SAID(said(copied_kernel, kOneBlock, static_cast<const std::uint32_t*>(p), static_cast<std::uint32_t*>(q)),
              "wrote behind a piece of 12 bytes");
  check("cudaFree", cudaFree(q));
  check("cudaFree", cudaFree(p));
}
#endif

__global__ void nothing_kernel() {}
__global__ void large_kernel() {}
TEST(ShimRules, WhatCudaRefusesIsRefused) {
  const auto raw = [](dim3 blocks, dim3 threads, std::size_t shared) {
    cudaLaunchConfig_t c{};
    c.gridDim = blocks, c.blockDim = threads, c.dynamicSmemBytes = shared;
    return cudaLaunchKernelEx(&c, nothing_kernel);
  };
  EXPECT_EQ(raw(1, 1, 0), cudaSuccess);
  EXPECT_EQ(raw(0, 1, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(raw(1, 1025, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(raw(dim3(1, 65536), 1, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(raw(1, 1, 49 * 1024), cudaErrorInvalidConfiguration);  // more than 48 KiB without having asked
  EXPECT_EQ(said(large_kernel, {dim3(1), dim3(32), 49 * 1024}), "");
  EXPECT_SAID(said(large_kernel, {dim3(1), dim3(32), 164 * 1024}), "invalid argument");  // more than an sm_80 has
  EXPECT_EQ(said(nothing_kernel, {dim3(0), dim3(32)}), "");                              // launch() starts nothing on an empty grid
}

__global__ void unwaited_kernel(const float* from, float* seen) {
  float* const shared = ptx::dynamic_shared<float>();
  ptx::copy_async_16(shared + 4 * threadIdx.x, from, true);
  ptx::copy_async_commit();
  seen[threadIdx.x] = shared[4 * threadIdx.x];
  ptx::copy_async_wait<0>();
}
TEST(ShimRules, TheDestinationOfACopyIsNaNUntilTheWait) {
  const std::vector<float> from(4, 7.0f);
  std::vector<float> seen(kThreads);
  EXPECT_EQ(said(unwaited_kernel, kOneBlock, from.data(), seen.data()), "");
  EXPECT_TRUE(std::isnan(seen[0]) && std::isnan(seen[63]));
}
__global__ void twice_kernel(const float* from) {
  float* const shared = ptx::dynamic_shared<float>() + 4 * threadIdx.x;
  ptx::copy_async_16(shared, from, true);
  ptx::copy_async_16(shared, from, true);
}
__global__ void unaligned_kernel(const float* from) { ptx::copy_async_16(ptx::dynamic_shared<float>() + 1, from, true); }
__global__ void outside_kernel(const float* from) { ptx::copy_async_16(ptx::dynamic_shared<float>() + 256, from, true); }
TEST(ShimRules, CopiesOverCopiesUnalignedOrOutsideAreErrors) {
  const std::vector<float> from(8);
  EXPECT_SAID(said(twice_kernel, kOneBlock, from.data()), "has a copy in flight already");
  EXPECT_SAID(said(unaligned_kernel, kOneBlock, from.data()), "multiples of 16");
  EXPECT_SAID(said(outside_kernel, kOneBlock, from.data()), "outside of the block's shared memory");
}

// One warp copies 512 bytes that the other reads as matrices; barrier: whether they meet in between.
__global__ void copy_then_read_kernel(const float* from, bool wait, bool barrier) {
  float* const shared = ptx::dynamic_shared<float>();
  if (threadIdx.x < 32) {
    ptx::copy_async_16(shared + 4 * threadIdx.x, from, true);
    ptx::copy_async_commit();
    if (wait) ptx::copy_async_wait<0>();
  }
  if (barrier) __syncthreads();
  std::uint32_t r[4];
  if (threadIdx.x >= 32) ptx::ldmatrix_x4(r, shared + 4 * (threadIdx.x - 32));
  __syncthreads();
}
__global__ void read_then_copy_kernel(const float* from, bool barrier) {
  float* const shared = ptx::dynamic_shared<float>();
  std::uint32_t r[4];
  if (threadIdx.x >= 32) ptx::ldmatrix_x4(r, shared + 4 * (threadIdx.x - 32));
  if (barrier) __syncthreads();
  if (threadIdx.x < 32) ptx::copy_async_16(shared + 4 * threadIdx.x, from, true);
}
TEST(ShimRules, RacesBetweenWarpsAreFoundInOneOrderAtLeast) {
  const std::vector<float> from(4);
  const auto found = [&](auto kernel, auto... flags) {
    std::string all;
    for (const auto order : {shim::Order::forward, shim::Order::reverse}) {
      shim::order = order;
      try {
        launch("broken_kernel", kernel, kOneBlock, {}, from.data(), flags...);
      } catch (const std::exception& e) {
        all += e.what();
      }
    }
    shim::order = shim::Order::forward;
    return all;
  };
  EXPECT_EQ(found(copy_then_read_kernel, true, true), "");
  EXPECT_SAID(found(copy_then_read_kernel, true, false), "no barrier since");
  EXPECT_SAID(found(copy_then_read_kernel, false, true), "nobody waited for");
  EXPECT_EQ(found(read_then_copy_kernel, true), "");
  EXPECT_SAID(found(read_then_copy_kernel, false), "overwrites what another warp has read");
}

__global__ void rows_apart_kernel(int bytes) {
  std::uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::dynamic_shared<char>() + static_cast<int>(threadIdx.x) * bytes);
}
TEST(ShimRules, BankConflictsOfMatrixLoadsAreCounted) {
  const auto extra = [](int bytes) {
    shim::stats = {};
    launch("rows_apart_kernel", rows_apart_kernel, {dim3(1), dim3(32), 8192}, {}, bytes);
    return shim::stats.ldmatrix_extra;
  };
  EXPECT_EQ(extra(16), 0);
  EXPECT_EQ(extra(144), 0);
  EXPECT_EQ(extra(128), 4 * 7);  // eight rows in one bank group, in each of four matrices
  EXPECT_EQ(extra(32), 4 * 1);
}

__global__ void order_kernel(int* order, int* next) { order[(*next)++] = static_cast<int>(threadIdx.x); }
TEST(ShimRules, ThreadsRunFirstToLastAndLastToFirst) {
  std::vector<int> order(kThreads);
  for (const auto wanted : {shim::Order::forward, shim::Order::reverse}) {
    int next = 0;
    shim::order = wanted;
    launch("order_kernel", order_kernel, kOneBlock, {}, order.data(), &next);
    EXPECT_EQ(order.front(), wanted == shim::Order::forward ? 0 : 63);
    EXPECT_EQ(order.back(), wanted == shim::Order::forward ? 63 : 0);
  }
  shim::order = shim::Order::forward;
}

TEST(ShimRules, AfterAnErrorTheNextLaunchRuns) {
  said(divergent_barrier_kernel, kOneBlock);
  std::vector<float> x(kThreads);
  EXPECT_EQ(said(read_shared_kernel, kOneBlock, x.data()), "");
}

}  // namespace
}  // namespace lc::cuda
