#include "engine/snapshot.h"

#include <algorithm>

#include "engine/memory.h"
#include "engine/profile.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cuda/device.h"

namespace lc {
namespace {

void in_parts(std::size_t bytes, const auto& work) {
  kernels::parallel_for(static_cast<std::int64_t>(bytes), 1 << 20,
                        [&](std::int64_t begin, std::int64_t end, std::int64_t) { work(begin, end); });
}

}  // namespace

void ParameterSnapshot::reserve(const Parameters& parameters) {
  const Queue& queue = parameters.queue();
  if (copies_[0] || (queue.imagined() && queue.device != Device::cpu)) return;  // it is memory of the host
  const std::size_t size = bytes(parameters) / 3;
  for (std::shared_ptr<std::byte>& copy : copies_) {
    copy = allocate(queue.device == Device::cpu ? queue : Queue{}, size);
    if (queue.imagined()) continue;
    in_parts(size, [&](std::int64_t begin, std::int64_t end) { std::fill(copy.get() + begin, copy.get() + end, std::byte{}); });
  }
}

void ParameterSnapshot::take(const Parameters& parameters) {
  reserve(parameters);
  const Queue& queue = parameters.queue();
  const std::size_t size = bytes(parameters) / 3;
  const Measured measured("snapshot", queue, 6.0 * static_cast<double>(size), 0);
  if (queue.imagined()) return;
  const NamedParameter& first = parameters.named().front();
  const std::array<const float*, 3> from = {parameters.master(first), parameters.moment1(first), parameters.moment2(first)};
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::byte* to = copies_[i].get();
    const auto* source = reinterpret_cast<const std::byte*>(from[i]);
    if (queue.device == Device::cuda)
      cuda::download(queue, to, source, {size, 1, size, size});
    else
      in_parts(size, [&](std::int64_t begin, std::int64_t end) { std::copy(source + begin, source + end, to + begin); });
  }
}

}  // namespace lc
