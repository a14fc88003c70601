// The work of an attention kernel on the CPU: one task per (key sequence, head), with all query sequences that read it end to end,
// so that they share its panels and its gradient is summed in one fixed order. Independent of the number of threads.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace lc::kernels::attention {

// Block sizes. Scratch rows are kStride floats apart, whatever they hold: an odd number of cache lines, so columns do not collide.
constexpr std::int64_t kQueryBlock = 112, kKeyBlock = 128, kStride = kKeyBlock + 16;
constexpr std::int64_t kWidest = 128;  // head width
static_assert(kQueryBlock % 16 == 0 && kKeyBlock % 32 == 0 && kStride >= kWidest);

enum class Chance : std::uint8_t { off, on };  // dropout

struct Queries {           // one query sequence
  std::int64_t begin = 0;  // its first row among the task's queries
  std::int64_t rows = 0;
  std::int64_t token = 0;  // its first row in q
  std::uint64_t key = 0;   // for chance
};
struct Run {             // neighbouring query rows of one sequence within a block of the task's queries
  std::int64_t row = 0;  // first row in the block
  std::int64_t rows = 0;
  std::int64_t token = 0;     // first row in q
  std::int64_t position = 0;  // first row in its sequence
  std::uint64_t key = 0;
};
struct Task {
  std::int64_t keys_begin = 0, keys = 0, rows = 0;  // rows: queries in all
  std::vector<Queries> queries;
};

std::vector<Task> tasks_of(const PackingView& queries, const PackingView& keys);  // the largest first
void runs_of(const Task&, std::int64_t begin, std::int64_t end, std::vector<Run>& runs);

// Memory of one thread, kept from call to call and grown when needed.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void reserve(std::size_t floats);  // starts a new round: everything taken before is gone
  float* take(std::size_t floats);   // aligned to 64 bytes, uninitialised
  float* rows(std::int64_t n) { return take(static_cast<std::size_t>((n + 32) * kStride)); }  // and a panel past the end

 private:
  float* data_ = nullptr;
  std::size_t size_ = 0, used_ = 0;
};
Scratch& scratch();  // of this thread

}  // namespace lc::kernels::attention
