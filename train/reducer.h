// The sum of the gradients over ranks, in a few slices of the arena: the last that was declared first, because backward finishes it first.
// A slice is summed as soon as backward is through with it, beside what is left where the ranks can do both. Every rank sums the same
// slices in the same order, whatever it alone has or has not to do; frozen weights are left out.
#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/comm.h"
#include "engine/parameters.h"
#include "engine/tape.h"

namespace lc {

struct GradientSlice {  // elements of the arena
  std::int64_t begin = 0, end = 0;
};

// Whole parameters, in the order in which they are summed: at most six slices, but where more than a MiB of frozen weights lies between
// two. The module that was declared first (embeddings) is finished last and all at once: it is the last slice, so that the others do not
// wait for it. Of them none is below `least` floats, but the last.
std::vector<GradientSlice> gradient_slices(const Parameters& parameters, std::int64_t least);

class Reducer {
 public:
  static constexpr std::int64_t kLeastSlice = std::int64_t{25} << 18;  // 25 MiB

  Reducer(const Parameters& parameters, Communicator& ranks, std::int64_t least_slice = kLeastSlice);
  void follow(Tape& tape);  // the last of a step; the reducer must outlive its backward
  void finish();            // collective, after that backward: what the queue does from now on finds the sums

 private:
  void begin_what_is_ready();
  const Parameters& parameters_;
  Communicator& ranks_;
  std::vector<GradientSlice> slices_;
  std::unordered_map<const Leaf*, std::size_t> slice_of_;
  std::vector<int> awaited_;  // of each slice: parameters that backward is not through with
  std::size_t next_ = 0;      // the first slice whose sum has not begun
};

}  // namespace lc
