#include "engine/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "engine/errors.h"

namespace lc {

std::shared_ptr<const Packing> Packing::make(const PackingSpec& spec, const Queue& queue) {
  const std::size_t n = spec.lengths.size();
  if (spec.keys.size() != n || (!spec.kv_of.empty() && spec.kv_of.size() != n)) {
    throw ShapeError(fmt::format("packing: wanted {} keys and 0 or {} kv_of, got {} and {}", n, n, spec.keys.size(), spec.kv_of.size()));
  }
  auto p = std::make_shared<Packing>();
  p->keys_ = spec.keys, p->kv_of_ = spec.kv_of;
  p->offsets_.reserve(n + 1);
  p->offsets_.push_back(0);
  std::vector<std::int32_t> sequence_of;
  std::int64_t total = 0;
  for (std::size_t b = 0; b < n; ++b) {
    if (spec.lengths[b] < 0) throw ShapeError(fmt::format("packing: wanted lengths of at least 0, got {}", spec.lengths[b]));
    total += spec.lengths[b];
    if (total > std::numeric_limits<std::int32_t>::max()) throw ShapeError("packing: wanted fewer than 2^31 tokens in a batch");
    p->offsets_.push_back(static_cast<std::int32_t>(total));
    p->longest_ = std::max<std::int64_t>(p->longest_, spec.lengths[b]);
    sequence_of.insert(sequence_of.end(), static_cast<std::size_t>(spec.lengths[b]), static_cast<std::int32_t>(b));
  }
  p->offsets_there_ = Tensor::from(p->offsets_, queue);
  p->sequence_of_there_ = Tensor::from(sequence_of, queue);
  p->keys_there_ = Tensor::from(p->keys_, queue);
  if (!p->kv_of_.empty()) p->kv_of_there_ = Tensor::from(p->kv_of_, queue);
  p->first_rows_ = Tensor::from(std::vector<std::int32_t>(p->offsets_.begin(), p->offsets_.end() - 1), queue);
  return p;
}

kernels::PackingView Packing::view() const {
  return {sequences(),
          tokens(),
          longest_,
          offsets_there_.data<std::int32_t>(),
          sequence_of_there_.data<std::int32_t>(),
          keys_there_.data<std::uint64_t>(),
          kv_of_there_ ? kv_of_there_.data<std::int32_t>() : nullptr};
}

}  // namespace lc
