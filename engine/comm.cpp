// What ranks in host memory do with numbers of a queue: the same as with any others. One rank has nothing to do.
#include "engine/comm.h"

#include <algorithm>
#include <numeric>

#include "engine/errors.h"

namespace lc {

static void require_host(const Queue& queue) {
  if (queue.device != Device::cpu) throw ShapeError("ranks: wanted NCCL for numbers on a GPU, got ranks that talk in host memory");
}

std::span<float> part_of_rank(int rank, std::span<float> all, std::span<const std::int64_t> counts) {
  const auto begin = std::accumulate(counts.begin(), counts.begin() + rank, std::int64_t{0});
  const std::int64_t count = counts[static_cast<std::size_t>(rank)];
  if (begin < 0 || count < 0 || begin + count > std::ssize(all)) throw ShapeError("all_gather_on: wanted room for the rows of all ranks");
  return all.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
}

void Communicator::all_reduce_sum_on(const Queue& queue, std::span<float> values) {
  if (size() == 1) return;
  require_host(queue);
  all_reduce_sum(values);
}

void Communicator::all_gather_on(const Queue& queue, std::span<float> all, std::span<const std::int64_t> counts) {
  if (size() == 1) return;
  require_host(queue);
  const std::vector<float> rows = all_gather_rows(std::span<const float>(part_of_rank(rank(), all, counts)), 1);
  if (rows.size() != all.size()) throw ShapeError("all_gather_on: wanted the counts of all ranks");
  std::copy(rows.begin(), rows.end(), all.begin());
}

}  // namespace lc
