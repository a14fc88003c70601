// Memory from the device's stream-ordered pool: a piece given back is free for whatever comes later on the same stream, without waiting.
#include <atomic>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace lc::cuda {

std::vector<std::string> devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return {};
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    names.push_back(std::string(p.name) + ", compute capability " + std::to_string(p.major) + "." + std::to_string(p.minor) + ", " +
                    std::to_string(p.totalGlobalMem >> 20) + " MiB");
  }
  return names;
}

std::string why_not(const Queue& queue) {
  int count = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess && cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
    return "no CUDA driver on this machine; use --device cpu";
  if (error != cudaSuccess) return std::string("no CUDA device: ") + cudaGetErrorString(error) + "; use --device cpu";
  if (queue.index >= 0 && queue.index < count) return "";
  return "no CUDA device " + std::to_string(queue.index) + ": this machine has " + std::to_string(count) + "; use --device cpu";
}

// By default the pool gives all that is free back to the driver at every synchronisation, and takes it again at the next step.
static void keep_freed_memory(int device) {
  static std::atomic<std::uint64_t> done{0};
  const std::uint64_t bit = std::uint64_t{1} << (device % 64);
  if (done.fetch_or(bit) & bit) return;
  cudaMemPool_t pool{};
  std::uint64_t all = ~std::uint64_t{0};
  check("device memory", cudaDeviceGetDefaultMemPool(&pool, device));
  check("device memory", cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all));
}

void* allocate(const Queue& queue, std::size_t bytes) {
  void* p = nullptr;
  check("device memory", cudaSetDevice(queue.index));
  keep_freed_memory(queue.index);
  const cudaError_t error = cudaMallocAsync(&p, bytes, stream_of(queue));
  if (error != cudaErrorMemoryAllocation) check("device memory", error);
  return error == cudaSuccess ? p : nullptr;
}

void release(const Queue& queue, void* p) noexcept { cudaFreeAsync(p, stream_of(queue)); }

void download(const Queue& queue, void* to, const void* from, const Bytes& b) {
  if (b.width == 0 || b.rows == 0) return;
  check("download", cudaMemcpy2DAsync(to, b.to_step, from, b.from_step, b.width, b.rows, cudaMemcpyDeviceToHost, stream_of(queue)));
  check("download", cudaStreamSynchronize(stream_of(queue)));
}

void clear(const Queue& queue, void* to, const Bytes& b) {
  if (b.width == 0 || b.rows == 0) return;
  check("clear", cudaMemset2DAsync(to, b.to_step, 0, b.width, b.rows, stream_of(queue)));
}

void wait(const Queue& queue) { check("wait", cudaStreamSynchronize(stream_of(queue))); }

double seconds_of(const Queue& queue, const std::function<void()>& work) {
  cudaEvent_t begin{}, end{};
  check("timing", cudaEventCreate(&begin));
  check("timing", cudaEventCreate(&end));
  check("timing", cudaEventRecord(begin, stream_of(queue)));
  work();
  check("timing", cudaEventRecord(end, stream_of(queue)));
  check("timing", cudaEventSynchronize(end));
  float milliseconds = 0;
  check("timing", cudaEventElapsedTime(&milliseconds, begin, end));
  check("timing", cudaEventDestroy(begin));
  check("timing", cudaEventDestroy(end));
  return milliseconds / 1e3;
}

}  // namespace lc::cuda
