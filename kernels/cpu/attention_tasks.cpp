#include "kernels/cpu/attention_tasks.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace lc::kernels::attention {

std::vector<Task> tasks_of(const PackingView& queries, const PackingView& keys) {
  std::vector<Task> tasks(static_cast<std::size_t>(keys.sequences));
  for (std::int64_t b = 0; b < keys.sequences; ++b) {
    tasks[b].keys_begin = keys.offsets[b];
    tasks[b].keys = keys.offsets[b + 1] - keys.offsets[b];
  }
  for (std::int64_t b = 0; b < queries.sequences; ++b) {
    Task& task = tasks[queries.kv_of ? queries.kv_of[b] : b];
    const std::int64_t rows = queries.offsets[b + 1] - queries.offsets[b];
    if (rows > 0) task.queries.push_back({task.rows, rows, queries.offsets[b], queries.keys ? queries.keys[b] : 0});
    task.rows += rows;
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.rows * a.keys > b.rows * b.keys; });
  return tasks;
}

void runs_of(const Task& task, std::int64_t begin, std::int64_t end, std::vector<Run>& runs) {
  runs.clear();
  auto q = std::upper_bound(task.queries.begin(), task.queries.end(), begin,
                            [](std::int64_t row, const Queries& s) { return row < s.begin + s.rows; });
  for (; q != task.queries.end() && q->begin < end; ++q) {
    const std::int64_t first = std::max(begin, q->begin), last = std::min(end, q->begin + q->rows), position = first - q->begin;
    runs.push_back({first - begin, last - first, q->token + position, position, q->key});
  }
}

Scratch::~Scratch() { std::free(data_); }

void Scratch::reserve(std::size_t floats) {
  used_ = 0;
  if (floats <= size_) return;
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  const std::size_t bytes = (floats * sizeof(float) + kHugePage - 1) / kHugePage * kHugePage;
  std::free(data_);
  size_ = 0;
  data_ = static_cast<float*>(std::aligned_alloc(kHugePage, bytes));
  if (!data_) throw std::bad_alloc();
  madvise(data_, bytes, MADV_HUGEPAGE);
  size_ = bytes / sizeof(float);
}

float* Scratch::take(std::size_t floats) {
  float* const p = data_ + used_;
  used_ += (floats + 15) / 16 * 16;
  return p;
}

Scratch& scratch() {
  thread_local Scratch s;
  return s;
}

}  // namespace lc::kernels::attention
