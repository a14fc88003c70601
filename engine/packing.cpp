#include "engine/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "engine/errors.h"

namespace lc {
namespace {

Tensor in_device_memory(const std::vector<kernels::Strip>& strips, const Queue& queue) {
  static_assert(sizeof(kernels::Strip) == 4 * sizeof(std::int32_t));
  std::vector<std::int32_t> numbers(4 * strips.size());
  if (!strips.empty()) std::memcpy(numbers.data(), strips.data(), strips.size() * sizeof(kernels::Strip));
  return Tensor::from(numbers, queue);
}

}  // namespace

Tensor Packing::blocks_of(const std::vector<std::int32_t>& offsets, std::int32_t rows, const Queue& queue) {
  constexpr std::int32_t kWarpgroupRows = 64;
  const auto length = [&](std::int32_t b) { return offsets[static_cast<std::size_t>(b) + 1] - offsets[static_cast<std::size_t>(b)]; };
  std::vector<kernels::Strip> blocks;
  for (std::int32_t b = 0; b < static_cast<std::int32_t>(offsets.size()) - 1; ++b) {
    for (std::int32_t row = 0, taken = 0; row < length(b); row += taken) {
      const std::int32_t left = length(b) - row;
      taken = left > rows && left <= rows + kWarpgroupRows ? rows - kWarpgroupRows : std::min(rows, left);  // no block is left with a few
      blocks.push_back({b, row, offsets[static_cast<std::size_t>(b)] + row, taken});
    }
  }
  std::ranges::stable_sort(blocks, std::greater<>(), [&](const kernels::Strip& block) {  // start and end cost about as much as 64 rows
    return static_cast<std::int64_t>(length(block.sequence)) * (block.rows + kWarpgroupRows);
  });
  return in_device_memory(blocks, queue);
}

// Sequence b reads kv_of[b], or itself where kv_of is empty.
Packing::StripsThere Packing::strips_of(const std::vector<std::int32_t>& offsets, const std::vector<std::int32_t>& kv_of,
                                        const Queue& queue) {
  constexpr std::int32_t kRows = 16, kGroup = 8;
  struct Readers {
    std::vector<kernels::Strip> strips;
    std::int64_t rows = 0;
  };
  const std::size_t n = offsets.size() - 1;
  std::vector<Readers> of_keys(kv_of.empty() ? n : static_cast<std::size_t>(*std::max_element(kv_of.begin(), kv_of.end())) + 1);
  for (std::size_t b = 0; b < n; ++b) {
    if (!kv_of.empty() && kv_of[b] < 0) throw ShapeError(fmt::format("packing: wanted kv_of of at least 0, got {}", kv_of[b]));
    Readers& readers = of_keys[kv_of.empty() ? b : static_cast<std::size_t>(kv_of[b])];
    const std::int32_t length = offsets[b + 1] - offsets[b];
    readers.rows += length;
    for (std::int32_t row = 0; row < length; row += kRows)
      readers.strips.push_back({static_cast<std::int32_t>(b), row, offsets[b] + row, std::min(kRows, length - row)});
  }
  std::vector<std::size_t> order(of_keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return of_keys[a].rows > of_keys[b].rows; });
  std::vector<kernels::Strip> all;
  std::vector<std::int32_t> spans(2 * of_keys.size());
  for (const std::size_t k : order) {
    spans[2 * k] = static_cast<std::int32_t>(all.size());
    all.insert(all.end(), of_keys[k].strips.begin(), of_keys[k].strips.end());
    spans[2 * k + 1] = static_cast<std::int32_t>(all.size());
    while (all.size() % kGroup != 0) all.emplace_back();
  }
  return {in_device_memory(all, queue), Tensor::from(spans, queue)};
}
kernels::Strips Packing::StripsThere::view() const {
  if (!all) return {};
  return {reinterpret_cast<const kernels::Strip*>(all.data<std::int32_t>()), all.shape().count() / 4, of_keys.data<std::int32_t>(),
          of_keys.shape().count() / 2};
}

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
  if (queue.device == Device::cuda && n > 0) {
    p->own_strips_ = strips_of(p->offsets_, {}, queue);
    if (!spec.kv_of.empty()) p->shared_strips_ = strips_of(p->offsets_, spec.kv_of, queue);
    p->blocks_of_128_ = blocks_of(p->offsets_, 128, queue), p->blocks_of_192_ = blocks_of(p->offsets_, 192, queue);
  }
  p->offsets_there_ = Tensor::from(p->offsets_, queue);
  p->sequence_of_there_ = Tensor::from(sequence_of, queue);
  p->keys_there_ = Tensor::from(p->keys_, queue);
  if (!p->kv_of_.empty()) p->kv_of_there_ = Tensor::from(p->kv_of_, queue);
  p->first_rows_ = Tensor::from(std::vector<std::int32_t>(p->offsets_.begin(), p->offsets_.end() - 1), queue);
  return p;
}

kernels::PackingView Packing::view() const {
  const auto blocks = [](const Tensor& t) -> kernels::RowBlocks {
    if (!t) return {};
    return {reinterpret_cast<const kernels::Strip*>(t.data<std::int32_t>()), t.shape().count() / 4};
  };
  return {sequences(),
          tokens(),
          longest_,
          offsets_there_.data<std::int32_t>(),
          sequence_of_there_.data<std::int32_t>(),
          keys_there_.data<std::uint64_t>(),
          kv_of_there_ ? kv_of_there_.data<std::int32_t>() : nullptr,
          (kv_of_there_ ? shared_strips_ : own_strips_).view(),
          blocks(blocks_of_128_),
          blocks(blocks_of_192_)};
}
kernels::PackingView Packing::own_view() const {
  kernels::PackingView v = view();
  v.kv_of = nullptr, v.strips = own_strips_.view();
  return v;
}

}  // namespace lc
