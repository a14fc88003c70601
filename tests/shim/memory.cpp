// Device memory: host memory of exactly the bytes asked for, filled with NaN; a canary behind it is looked at after every launch.
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>

#include "tests/shim/cuda_runtime.h"
#include "tests/shim/fibers.h"

namespace {

constexpr std::size_t kAlignment = 256, kCanary = 256 ASAN(*0);  // ASan sees steps outside by itself

std::mutex mutex;
struct Piece {
  std::size_t bytes;
  int device;  // −1: the host's
};
std::map<char*, Piece>& pieces() {
  static auto& live = *new std::map<char*, Piece>;  // outlives every tensor, static ones too
  return live;
}

// What lies behind a piece: signalling NaNs for float and bf16, which arithmetic makes quiet and so changes, and others at each place, so
// that a kernel that copies what it read behind one piece to behind another is seen as well.
void mark(char* piece, std::size_t bytes) {
  for (std::size_t i = 0; i < kCanary; ++i) piece[bytes + i] = shim::mark_behind(piece, bytes + i);
}
bool intact(const char* piece, std::size_t bytes) {
  for (std::size_t i = 0; i < kCanary; ++i) {
    if (piece[bytes + i] != shim::mark_behind(piece, bytes + i)) return false;
  }
  return true;
}

}  // namespace

char shim::mark_behind(const void* piece, std::size_t at) {
  if (at % 2) return 0x7f;  // little-endian: the high byte, with every exponent bit but the lowest
  std::size_t mixed = (reinterpret_cast<std::uintptr_t>(piece) / 64 * 0x94d049bb133111ebu + at / 2) * 0x9e3779b97f4a7c15u;
  mixed = (mixed ^ mixed >> 32) * 0xbf58476d1ce4e5b9u;  // else places a certain way apart are equal all along
  return static_cast<char>(0x81 + (mixed >> 32) % 61);
}

void shim::check_memory_behind() {
  const std::lock_guard lock(mutex);
  for (const auto& [piece, what] : pieces()) {
    if (intact(piece, what.bytes)) continue;
    mark(piece, what.bytes);
    throw std::runtime_error(std::string(kernel_name) + ": wrote behind a piece of " + std::to_string(what.bytes) +
                             " bytes of device memory");
  }
}

int shim::device_of(const void* memory, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  const auto behind = pieces().upper_bound(const_cast<char*>(static_cast<const char*>(memory)));
  if (behind == pieces().begin()) return -1;
  const auto& [begin, what] = *std::prev(behind);
  return static_cast<const char*>(memory) + bytes <= begin + what.bytes ? what.device : -1;
}

static cudaError_t allocate(void** p, std::size_t bytes, int device) {
  if (posix_memalign(p, kAlignment, bytes + kCanary + (bytes + kCanary == 0))) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xff, bytes);
  mark(static_cast<char*>(*p), bytes);
  const std::lock_guard lock(mutex);
  pieces()[static_cast<char*>(*p)] = {bytes, device};
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, std::size_t bytes) { return allocate(p, bytes, shim::current_device); }
cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned) { return allocate(p, bytes, -1); }

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
    case cudaErrorNotReady:
      return "device not ready";
  }
  return "unknown error";
}
