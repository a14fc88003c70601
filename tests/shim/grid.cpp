// A launch: CUDA's limits, shared memory of exactly the bytes asked for, and the blocks one after another.
#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include "tests/shim/cuda_runtime.h"
#include "tests/shim/fibers.h"
#include "tests/shim/run_block.h"

namespace shim {
namespace {

constexpr std::size_t kCanary = 1024 ASAN(*0);  // bytes behind shared memory that must stay as they are; ASan poisons instead

std::map<const void*, int>& allowed() {
  thread_local std::map<const void*, int> bytes_of_kernel;
  return bytes_of_kernel;
}

bool legal(const Launch& l) {
  constexpr int kWithoutAsking = 48 * 1024;
  const auto found = allowed().find(l.kernel);
  const int most = found == allowed().end() ? kWithoutAsking : std::max(kWithoutAsking, found->second);
  const std::size_t threads = std::size_t{l.block.x} * l.block.y * l.block.z;
  return threads > 0 && threads <= 1024 && l.block.z <= 64 && l.grid.x > 0 && l.grid.x <= 0x7fffffffu && l.grid.y > 0 && l.grid.z > 0 &&
         l.grid.y <= 65535 && l.grid.z <= 65535 && l.shared <= static_cast<std::size_t>(most);
}

void prepare(dim3 dim) {
  Block& b = *block;
  TSAN(++b.token; b.shared += b.stride;)
  for (std::size_t i = 0; i < b.shared_bytes + kCanary; ++i)
    static_cast<volatile char*>(b.shared)[i] = i < b.shared_bytes ? static_cast<char>(0xff) : mark_behind(b.shared, i);
  b.arrived = b.returned = b.epoch = 0;
  b.cells.assign((b.shared_bytes + 15) / 16, Cell{});
  b.mbarriers.clear();
  for (int i = 0; i < b.count; ++i) {
    Thread& t = *b.threads[static_cast<std::size_t>(i)];
    const auto u = static_cast<unsigned>(i);
    t.index = {u % dim.x, u / dim.x % dim.y, u / (dim.x * dim.y)};
    t.lane = i % 32, t.warp = i / 32;
    b.warps[static_cast<std::size_t>(t.warp)]->threads[t.lane] = &t;
  }
  for (int w = 0; w < b.warp_count; ++w) {
    const int lanes = std::min(32, b.count - w * 32);
    Warp& p = *b.warps[static_cast<std::size_t>(w)];
    p.all = p.alive = p.runnable = lanes == 32 ? ~0u : (1u << lanes) - 1;
    p.arrived = 0;
  }
}

void run_block(dim3 dim) {
  Block& b = *block;
  prepare(dim);
  ++stats.blocks;
  run_threads();
  for (std::size_t i = 0; i < kCanary && b.error.empty(); ++i) {
    if (b.shared[b.shared_bytes + i] != mark_behind(b.shared, b.shared_bytes + i))
      b.error = head() + "wrote behind its " + std::to_string(b.shared_bytes) + " bytes of shared memory";
  }
  if (b.error.empty()) return;
  abandon_threads();
  throw std::runtime_error(std::exchange(b.error, {}));
}

}  // namespace

int allow_shared(const void* kernel, int bytes) {
  if (bytes > shared_limit) return cudaErrorInvalidValue;
  allowed()[kernel] = bytes;
  return cudaSuccess;
}

void* dynamic_shared() { return block->shared; }

int run_grid(const Launch& l) {
  if (!legal(l)) return cudaErrorInvalidConfiguration;
  if (!block) new_block();
  Block& b = *block;
  b.count = static_cast<int>(l.block.x * l.block.y * l.block.z), b.warp_count = (b.count + 31) / 32, b.body = l.body, b.data = l.data;
  want_threads(b.count);
  // Exactly as large as asked for, and aligned to 16 and to no more, so that kernels cannot lean on luck.
  const std::size_t all = (16 + l.shared + 1024 + 31) / 32 * 32;
  const std::unique_ptr<char, decltype(&std::free)> memory(static_cast<char*>(std::aligned_alloc(32, all)), std::free);
  b.shared = memory.get() + 16, b.shared_bytes = l.shared;
  ASAN(__asan_poison_memory_region(b.shared + l.shared, all - 16 - l.shared);)
  gridDim = l.grid, blockDim = l.block;
  const std::size_t blocks = std::size_t{l.grid.x} * l.grid.y * l.grid.z;
#if defined(SHIM_TSAN)
  static char tokens[1 << 24];
  if (!b.token || b.token > tokens + (1 << 23)) b.token = tokens;
  b.stride = (all + 63) / 64 * 64;
  void* const fresh = mmap(nullptr, b.stride * (blocks + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  b.shared = static_cast<char*>(fresh) + 16;
  const auto all_fibers = [&](void (*sync)(void*)) {
    for (int i = 0; i < b.count; ++i) __tsan_switch_to_fiber(b.threads[static_cast<std::size_t>(i)]->tsan, 1), sync(b.token);
    __tsan_switch_to_fiber(b.host.tsan, 1);
  };
  __tsan_release(++b.token);
  all_fibers(__tsan_acquire);
#endif
  for (std::size_t i = 0; i < blocks; ++i) {
    const std::size_t j = order == Order::reverse ? blocks - 1 - i : i;
    blockIdx = {static_cast<unsigned>(j % l.grid.x), static_cast<unsigned>(j / l.grid.x % l.grid.y),
                static_cast<unsigned>(j / (std::size_t{l.grid.x} * l.grid.y))};
    run_block(l.block);
  }
  TSAN(++b.token; all_fibers(__tsan_release); __tsan_acquire(b.token); munmap(fresh, b.stride * (blocks + 1));)
  check_memory_behind();
  return cudaSuccess;
}

}  // namespace shim
