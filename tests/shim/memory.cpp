// Device memory: host memory of exactly the bytes asked for, filled with NaN; a canary behind it is looked at after every launch.
#include <cstdlib>
#include <map>
#include <mutex>
#include <stdexcept>

#include "tests/shim/cuda_runtime.h"
#include "tests/shim/fibers.h"

namespace {

constexpr std::size_t kAlignment = 256, kCanary = 256 ASAN(*0);  // ASan sees steps outside by itself

std::mutex mutex;
std::map<char*, std::size_t>& pieces() {
  static auto& live = *new std::map<char*, std::size_t>;  // outlives every tensor, static ones too
  return live;
}

bool intact(const char* piece, std::size_t bytes) {
  for (std::size_t i = 0; i < kCanary; ++i) {
    if (piece[bytes + i] != static_cast<char>(0xff)) return false;
  }
  return true;
}

}  // namespace

void shim::check_memory_behind() {
  const std::lock_guard lock(mutex);
  for (const auto& [piece, bytes] : pieces()) {
    if (intact(piece, bytes)) continue;
    std::memset(piece + bytes, 0xff, kCanary);
    throw std::runtime_error(std::string(kernel_name) + ": wrote behind a piece of " + std::to_string(bytes) + " bytes of device memory");
  }
}

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  if (posix_memalign(p, kAlignment, bytes + kCanary + (bytes + kCanary == 0))) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xff, bytes + kCanary);
  const std::lock_guard lock(mutex);
  pieces()[static_cast<char*>(*p)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  const std::lock_guard lock(mutex);
  pieces().erase(static_cast<char*>(p));
  std::free(p);
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t e) {
  switch (e) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
  }
  return "unknown error";
}
