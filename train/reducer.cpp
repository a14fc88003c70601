#include "train/reducer.h"

#include <algorithm>
#include <string_view>

namespace lc {

// "cell_bert.embeddings." of cell_bert.embeddings.word_embeddings.weight; "" where a name has no such part.
static std::string_view module_of(std::string_view name) {
  const std::size_t last = name.rfind('.'), before = last == name.npos || last == 0 ? last : name.rfind('.', last - 1);
  return before == name.npos ? std::string_view() : name.substr(0, before + 1);
}

std::vector<GradientSlice> gradient_slices(const Parameters& parameters, std::int64_t least) {
  constexpr std::int64_t kMost = 6, kGap = std::int64_t{1} << 18;  // floats: a sum of its own costs more than a MiB sent for nothing
  std::vector<ParameterPlace> places = parameters.places();
  std::erase_if(places, [](const ParameterPlace& p) { return !p.trained; });
  if (places.empty()) return {};
  const std::string_view first_module = module_of(places.front().leaf->name);
  const auto is_first = [&](const ParameterPlace& p) { return !first_module.empty() && p.leaf->name.starts_with(first_module); };
  std::int64_t others = 0;
  for (const ParameterPlace& p : places) others += is_first(p) ? 0 : p.end - p.begin;
  const std::int64_t enough = std::max(least, (others + kMost - 2) / (kMost - 1));
  std::vector<GradientSlice> slices;
  const ParameterPlace* above = nullptr;
  for (auto p = places.rbegin(); p != places.rend(); above = &*p++) {
    const bool in_last = is_first(*p), joins = above && is_first(*above) == in_last && above->begin - p->end < kGap;
    if (joins && (in_last || slices.back().end - slices.back().begin < enough))
      slices.back().begin = p->begin;
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
