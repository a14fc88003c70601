// A class is a power of two in quarters, so at most a fifth of a block is unused.
#include "engine/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <atomic>
#include <bit>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "kernels/cuda/device.h"

namespace lc {
namespace {

constexpr std::size_t kAlignment = 64, kHugePage = std::size_t{2} << 20;

std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return 256;
  const std::size_t quarter = std::bit_floor(bytes - 1) / 4;
  return (bytes + quarter - 1) / quarter * quarter;
}

std::byte nowhere;  // where imagined memory lies

void* from_system(const Queue& queue, std::size_t bytes) {
  if (queue.imagined()) return &nowhere;
  if (queue.device == Device::cuda) return cuda::allocate(queue, bytes);
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  void* p = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (p && alignment == kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

void to_system(const Queue& queue, void* p) noexcept {
  if (queue.imagined()) return;
  if (queue.device == Device::cuda)
    cuda::release(queue, p);
  else
    std::free(p);
}

class Cache {
 public:
  explicit Cache(const Queue& queue) : queue_(queue) {}
  void* take(std::size_t wanted) {
    const std::size_t bytes = class_of(wanted);
    std::lock_guard lock(mutex_);
    void* p = nullptr;
    if (auto& shelf = free_[bytes]; !shelf.empty()) {
      p = shelf.back();
      shelf.pop_back();
    } else if (p = from_system(queue_, bytes); p) {
      use_.held += bytes;
    } else {
      release();
      p = from_system(queue_, bytes);
      if (!p)
        throw ResourceError(fmt::format(
            "out of memory: wanted {} MiB more while {} MiB are in use; use a smaller batch_size, more accumulate, or recompute = true",
            bytes >> 20, use_.in_use >> 20));
      use_.held += bytes;
    }
    use_.in_use += bytes;
    use_.peak = std::max(use_.peak, use_.in_use);
    return p;
  }
  void give(void* p, std::size_t wanted) {
    const std::size_t bytes = class_of(wanted);
    std::lock_guard lock(mutex_);
    use_.in_use -= bytes;
    free_[bytes].push_back(p);
    if (queue_.device == Device::cuda) release();
  }
  void release_unused() {
    std::lock_guard lock(mutex_);
    release();
  }
  MemoryUse use() {
    std::lock_guard lock(mutex_);
    return use_;
  }
  void reset_peak() {
    std::lock_guard lock(mutex_);
    use_.peak = use_.in_use;
  }

 private:
  std::size_t class_of(std::size_t bytes) const { return queue_.device == Device::cuda ? bytes : size_class(bytes); }
  void release() {
    for (auto& [bytes, shelf] : free_) {
      for (void* p : shelf) to_system(queue_, p);
      use_.held -= bytes * shelf.size();
      shelf.clear();
    }
  }
  const Queue queue_;
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  MemoryUse use_;
};

Cache& cache_of(const Queue& queue) {
  static Cache& cpu = *new Cache(Queue{});  // outlives every tensor, static ones too
  if (queue.device == Device::cpu && !queue.imagined()) return cpu;
  require_device(queue);
  static auto& others = *new std::map<std::pair<int, void*>, Cache>;
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  return others.try_emplace({queue.index, queue.stream}, queue).first->second;
}

}  // namespace

Queue imagined_queue(Device device) {
  static std::atomic<std::uintptr_t> last = 0;  // the number of one in place of a stream: each has its own account
  return {device, -1, reinterpret_cast<void*>(++last)};
}

std::shared_ptr<std::byte> allocate(const Queue& queue, std::size_t bytes) {
  Cache& cache = cache_of(queue);
  auto* p = static_cast<std::byte*>(cache.take(bytes));
  return {p, [&cache, bytes](std::byte* q) { cache.give(q, bytes); }};
}

MemoryUse memory_use(const Queue& queue) { return cache_of(queue).use(); }
void reset_memory_peak(const Queue& queue) { cache_of(queue).reset_peak(); }
void release_cached_memory(const Queue& queue) { cache_of(queue).release_unused(); }

std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string word; file >> word;) {
    std::uint64_t kib = 0;
    if (word == "MemAvailable:" && file >> kib) return kib << 10;
  }
  return 0;
}

std::string why_not_cuda() { return cuda::why_not({Device::cuda}); }

std::vector<std::string> devices() {
  std::vector<std::string> all = {"cpu"};
  const std::vector<std::string> cuda = cuda::devices();
  for (std::size_t i = 0; i < cuda.size(); ++i) all.push_back(fmt::format("cuda:{}: {}", i, cuda[i]));
  return all;
}

std::string name_of(const Queue& queue) {
  return queue.device == Device::cpu ? "cpu" : cuda::devices().at(static_cast<std::size_t>(queue.index));
}

Queue queue_named(const std::string& device, const std::string& key) {
  if (device == "cpu") return {};
  Queue queue{Device::cuda};
  if (device == "auto") return cuda::why_not(queue).empty() ? queue : Queue{};
  const bool numbered = device.starts_with("cuda:") && device.size() > 5 && device.size() < 9 &&
                        device.find_first_not_of("0123456789", 5) == std::string::npos;
  if (device != "cuda" && !numbered) throw UsageError(fmt::format("{}: wanted auto, cpu, cuda or cuda:N, got '{}'", key, device));
  if (numbered) queue.index = std::stoi(device.substr(5));
  require_device(queue);
  return queue;
}

void require_device(const Queue& queue) {
  if (queue.device == Device::cpu || queue.imagined()) return;
  if (const std::string reason = cuda::why_not(queue); !reason.empty()) throw ResourceError("device cuda: " + reason);
}

}  // namespace lc
