// The twin of CUDA's cuda_runtime.h: the part of CUDA that our kernels use, on the host. Only tests find it before the real one.
// There is no __shared__: arrays of a fixed size would escape the NaN filling and the bounds; kernels use ptx::dynamic_shared<T>().
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <tuple>
#include <utility>

#include "tests/shim/shim.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

inline void __syncthreads(shim::Site s = shim::Site::current()) { shim::block_barrier(s); }
inline void __syncwarp(unsigned m = ~0u, shim::Site s = shim::Site::current()) {
  shim::want_full_mask(m);
  shim::collective(shim::WarpOp::syncwarp, nullptr, 0, nullptr, s);
}
template <class T>
T __shfl_sync(unsigned m, T v, int from, int width = 32, shim::Site s = shim::Site::current()) {
  shim::want_full_mask(m);
  return shim::shuffle(v, (shim::lane() & ~(width - 1)) | (from & (width - 1)), s);
}
template <class T>
T __shfl_xor_sync(unsigned m, T v, int x, int width = 32, shim::Site s = shim::Site::current()) {
  shim::want_full_mask(m);
  const int lane = shim::lane(), from = lane ^ x;
  return shim::shuffle(v, (from & ~(width - 1)) > (lane & ~(width - 1)) ? lane : from, s);
}
template <class T>
T __shfl_up_sync(unsigned m, T v, int d, int width = 32, shim::Site s = shim::Site::current()) {
  shim::want_full_mask(m);
  const int lane = shim::lane();
  return shim::shuffle(v, (lane & (width - 1)) >= d ? lane - d : lane, s);
}
template <class T>
T __shfl_down_sync(unsigned m, T v, int d, int width = 32, shim::Site s = shim::Site::current()) {
  shim::want_full_mask(m);
  const int lane = shim::lane();
  return shim::shuffle(v, (lane & (width - 1)) + d < width ? lane + d : lane, s);
}
inline unsigned __ballot_sync(unsigned m, int p, shim::Site s = shim::Site::current()) {
  shim::want_full_mask(m);
  const std::uint32_t bit = p != 0;
  return shim::collective(shim::WarpOp::ballot, &bit, 4, shim::ballot_all, s).out[shim::lane()][0];
}
template <class T>
T atomicAdd(T* p, T v) {
  return std::atomic_ref<T>(*p).fetch_add(v, std::memory_order_relaxed);
}
template <class T>
T atomicMax(T* p, T v) {
  const std::atomic_ref<T> at(*p);
  T before = at.load(std::memory_order_relaxed);
  while (before < v && !at.compare_exchange_weak(before, v, std::memory_order_relaxed)) {}
  return before;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
using std::max;
using std::min;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotReady = 600
};
const char* cudaGetErrorString(cudaError_t e);
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

using cudaStream_t = struct CUstream_st*;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};
template <class T>
cudaError_t cudaFuncSetAttribute(T* kernel, cudaFuncAttribute, int bytes) {
  return cudaError_t(shim::allow_shared(reinterpret_cast<const void*>(kernel), bytes));
}
template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(P...), A&&... args) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> args;
  } call{kernel, {std::forward<A>(args)...}};
  shim::use_stream();
  const shim::Body body = [](void* p) { std::apply(static_cast<Call*>(p)->kernel, static_cast<Call*>(p)->args); };
  return cudaError_t(shim::run_grid({c->gridDim, c->blockDim, c->dynamicSmemBytes, reinterpret_cast<const void*>(kernel), body, &call}));
}

// Device memory is host memory, filled with NaN bytes, exactly as large as asked for, with a canary behind that every launch checks.
cudaError_t cudaMalloc(void** p, std::size_t bytes);
cudaError_t cudaFree(void* p);
inline cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t) { return cudaMalloc(p, bytes); }
inline cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
  shim::use_stream();
  return cudaFree(p);
}
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  shim::use_stream();
  if (bytes) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  shim::use_stream();
  if (bytes) std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_step, const void* from, std::size_t from_step, std::size_t width,
                                     std::size_t height, cudaMemcpyKind, cudaStream_t) {
  shim::use_stream();
  for (std::size_t i = 0; width && i < height; ++i)
    std::memcpy(static_cast<char*>(to) + i * to_step, static_cast<const char*>(from) + i * from_step, width);
  return cudaSuccess;
}
inline cudaError_t cudaMemset2DAsync(void* to, std::size_t step, int value, std::size_t width, std::size_t height, cudaStream_t) {
  shim::use_stream();
  for (std::size_t i = 0; width && i < height; ++i) std::memset(static_cast<char*>(to) + i * step, value, width);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  shim::use_stream();
  return cudaSuccess;
}
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  *value = what == cudaDevAttrMultiProcessorCount ? 2 : 0;  // so small that few blocks fill it
  if (what == cudaDevAttrComputeCapabilityMajor) *value = shim::compute_major;
  return cudaSuccess;
}
// A stream beside the thread's own takes collectives alone (shim.h says what it does with them).
struct CUstream_st {
  shim::StreamPtr work = std::make_shared<shim::Stream>();
};
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
inline const shim::StreamPtr& stream_of(cudaStream_t stream) { return stream ? stream->work : shim::own_stream(); }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (flags != cudaStreamNonBlocking)
    return cudaErrorInvalidValue;  // the other kind waits for everything: nothing would be beside anything
  *stream = new CUstream_st;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
using CUevent_st = shim::Event;
using cudaEvent_t = CUevent_st*;
enum { cudaHostAllocDefault = 0, cudaEventDefault = 0, cudaEventDisableTiming = 2 };
cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned flags);
inline cudaError_t cudaEventCreate(cudaEvent_t* e) {
  *e = new CUevent_st;
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return cudaEventCreate(e); }
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete e;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
  shim::record(*e, stream_of(stream));
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned) {
  shim::let_wait(stream_of(stream), *e);
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t e) { return !e->before || *e->before ? cudaSuccess : cudaErrorNotReady; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  shim::use_stream();
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = shim::device_count;
  return cudaSuccess;
}
struct cudaDeviceProp {
  char name[256];
  int major, minor;
  std::size_t totalGlobalMem;
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {"the shim", shim::compute_major, 0, std::size_t{1} << 30};
  return cudaSuccess;
}
using cudaMemPool_t = void*;
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t*, int) { return cudaSuccess; }
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int index) {
  if (index < 0 || index >= shim::device_count) return cudaErrorInvalidDevice;
  shim::current_device = index;
  return cudaSuccess;
}
