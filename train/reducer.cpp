#include "train/reducer.h"

#include <algorithm>

namespace lc {

std::vector<GradientSlice> gradient_slices(const Parameters& parameters, std::int64_t least) {
  constexpr std::int64_t kMost = 6, kGap = std::int64_t{1} << 18;  // floats: a sum of its own costs more than a MiB sent for nothing
  const std::vector<ParameterPlace> places = parameters.places();
  std::int64_t trained = 0;
  for (const ParameterPlace& p : places) trained += p.trained ? p.end - p.begin : 0;
  const std::int64_t enough = std::max(least, (trained + kMost - 1) / kMost);
  std::vector<GradientSlice> slices;
  for (auto p = places.rbegin(); p != places.rend(); ++p) {
    if (!p->trained) continue;
    GradientSlice* const last = slices.empty() ? nullptr : &slices.back();
    if (last && last->end - last->begin < enough && last->begin - p->end < kGap)
      last->begin = p->begin;
    else
      slices.push_back({p->begin, p->end});
  }
  return slices;
}

Reducer::Reducer(const Parameters& parameters, Communicator& ranks, std::int64_t least_slice) : parameters_(parameters), ranks_(ranks) {
  if (ranks_.size() == 1) return;
  slices_ = gradient_slices(parameters_, least_slice);
  awaited_.resize(slices_.size());
  for (const ParameterPlace& p : parameters_.places()) {
    for (std::size_t i = 0; i < slices_.size(); ++i) {
      if (slices_[i].begin <= p.begin && p.end <= slices_[i].end) slice_of_[p.leaf] = i;
    }
  }
}

void Reducer::follow(Tape& tape) {
  if (slices_.empty()) return;
  for (const Leaf* parameter : tape.parameters()) ++awaited_[slice_of_.at(parameter)];
  tape.on_ready([this](const Leaf& parameter) {
    --awaited_[slice_of_.at(&parameter)];
    begin_what_is_ready();
  });
  begin_what_is_ready();
}

void Reducer::begin_what_is_ready() {
  for (; next_ < slices_.size() && awaited_[next_] == 0; ++next_) {
    const auto [begin, end] = slices_[next_];
    ranks_.begin_sum_on(parameters_.queue(),
                        parameters_.gradients().subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
  }
}

void Reducer::finish() {
  begin_what_is_ready();
  if (!slices_.empty()) ranks_.end_sums_on(parameters_.queue());
}

}  // namespace lc
