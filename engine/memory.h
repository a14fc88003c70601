// Memory has an owner: a cache of size classes per queue. Blocks go back to the cache, not to the system; after the first step of a
// stage (run on its longest batch) the cache hardly grows. On the CPU large blocks lie on huge pages. On CUDA the driver's stream-ordered
// pool is the cache, and a block is exactly as large as asked for.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/numeric.h"

namespace lc {

struct MemoryUse {
  std::size_t in_use = 0, peak = 0, held = 0;  // bytes handed out now, at most so far, and taken from the system
};

// A new queue that stands for a device and uses none: what runs on it plans, allocates and frees as it would there, but memory is counted
// and never there, kernels do nothing, and numbers read back are zeros. memory_use() of it says what the work would take.
Queue imagined_queue(Device device);

std::shared_ptr<std::byte> allocate(const Queue& queue,
                                    std::size_t bytes);  // 64-byte aligned, uninitialised; ResourceError when there is none
MemoryUse memory_use(const Queue& queue);
void reset_memory_peak(const Queue& queue);
void release_cached_memory(const Queue& queue);  // gives back what nobody holds
void require_device(const Queue& queue);         // ResourceError when this build or machine cannot run there
std::uint64_t available_memory();                // bytes of the host that can be had without swapping; 0: nobody says
std::string name_of(const Queue& queue);         // "cpu", or the GPU's name
std::string why_not_cuda();                      // "" when work can run on a CUDA device, else the reason
std::vector<std::string> devices();              // cpu, and every CUDA device
// cpu, cuda or cuda:N; auto: cuda where it can run, else cpu. UsageError naming `key` for anything else, ResourceError as above.
Queue queue_named(const std::string& device, const std::string& key);

}  // namespace lc
