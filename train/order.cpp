#include "train/order.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <unordered_set>
#include <utility>

#include "engine/chance.h"
#include "engine/errors.h"

namespace lc {
namespace {

// What chance is drawn for here; dropout and masking have keys of their own (chance_of_step).
enum class Draw : std::uint32_t {
  permutation = 0x6f726401,
  shuffle = 0x6f726402,
  holdout = 0x6f726403,
  within_type = 0x6f726404,
  another = 0x6f726405,
};

PhiloxKey key_of(Draw what, std::uint64_t seed, std::uint32_t stage, std::uint32_t epoch) {
  const Philox folded = draw({{static_cast<std::uint32_t>(what), 1}}, seed, std::uint64_t{epoch} << 32 | stage);
  return {{folded.word[0], folded.word[1]}};
}

std::uint64_t bits64(const Philox& p) { return static_cast<std::uint64_t>(p.word[1]) << 32 | p.word[0]; }

constexpr std::uint64_t mask(int bits) { return (std::uint64_t{1} << bits) - 1; }
constexpr int kRounds = 6;

}  // namespace

Permutation::Permutation(std::int64_t size, std::uint64_t seed, std::uint32_t stage, std::uint32_t epoch)
    : Permutation(size, key_of(Draw::permutation, seed, stage, epoch)) {}

Permutation::Permutation(std::int64_t size, PhiloxKey key) : size_(static_cast<std::uint64_t>(size)), key_(key) {
  const int bits = std::max<int>(2, std::bit_width(size_ > 0 ? size_ - 1 : 0));
  high_bits_ = bits / 2, low_bits_ = bits - high_bits_;
}

std::int64_t Permutation::operator()(std::int64_t i) const {
  auto x = static_cast<std::uint64_t>(i);
  do {  // the network permutes a power of two below 2 · size (4 at least); steps outside are walked on
    std::uint64_t high = x >> low_bits_, low = x & mask(low_bits_);
    for (std::uint32_t round = 0; round < kRounds; round += 2) {
      high ^= bits64(draw(key_, low, round)) & mask(high_bits_);
      low ^= bits64(draw(key_, high, round + 1)) & mask(low_bits_);
    }
    x = high << low_bits_ | low;
  } while (x >= size_);
  return static_cast<std::int64_t>(x);
}

CellSet::CellSet(std::int64_t cells, const std::function<bool(std::int64_t)>& contains)
    : cells_(cells), bits_(static_cast<std::size_t>((cells + 511) / 512 * 8)), before_{0} {
  for (std::int64_t c = 0; c < cells; ++c) {
    if (contains(c)) bits_[static_cast<std::size_t>(c / 64)] |= std::uint64_t{1} << (c % 64);
  }
  for (std::size_t word = 0; word < bits_.size(); word += 8) {
    std::int64_t count = before_.back();
    for (std::size_t i = word; i < word + 8; ++i) count += std::popcount(bits_[i]);
    before_.push_back(count);
  }
}

std::int64_t CellSet::operator[](std::int64_t k) const {
  if (size() == cells_) return k;
  const auto block = std::upper_bound(before_.begin(), before_.end(), k) - before_.begin() - 1;
  std::int64_t left = k - before_[static_cast<std::size_t>(block)];
  auto word = static_cast<std::size_t>(block) * 8;
  for (; left >= std::popcount(bits_[word]); ++word) left -= std::popcount(bits_[word]);
  std::uint64_t rest = bits_[word];
  for (; left > 0; --left) rest &= rest - 1;  // drops the lowest member
  return static_cast<std::int64_t>(word) * 64 + std::countr_zero(rest);
}

bool is_held_out(std::uint64_t seed, double share, std::int64_t cell) {
  const Philox r = draw(key_of(Draw::holdout, seed, 0, 0), static_cast<std::uint64_t>(cell), 0);
  return static_cast<double>(bits64(r) >> 11) * 0x1p-53 < share;
}

bool is_held_out(std::uint64_t seed, double share, const std::string& group) {
  return is_held_out(seed, share, static_cast<std::int64_t>(fnv1a(group)));
}

// Shares end where the running sum of the roots says, so no rounding adds up.
TypeShares::TypeShares(const CellSet& cells, std::int64_t places, const std::function<std::int32_t(std::int64_t)>& type) {
  std::map<std::int32_t, std::int64_t> sizes;
  for (std::int64_t k = 0; k < cells.size(); ++k) ++sizes[type(cells[k])];
  double all = 0, sum = 0;
  for (const auto& [name, size] : sizes) all += std::sqrt(static_cast<double>(size));
  std::map<std::int32_t, std::int64_t> next;
  std::int64_t first = 0, begin = 0;
  for (const auto& [name, size] : sizes) {
    sum += std::sqrt(static_cast<double>(size));
    const std::int64_t end = std::llround(static_cast<double>(places) * (sum / all));
    types_.push_back({name, first, size, begin, end - begin});
    next[name] = first;
    first += size, begin = end;
  }
  by_type_.resize(static_cast<std::size_t>(cells.size()));
  for (std::int64_t k = 0; k < cells.size(); ++k) {
    const std::int64_t cell = cells[k];
    by_type_[static_cast<std::size_t>(next[type(cell)]++)] = cell;
  }
}

std::int64_t TypeShares::cell(std::int64_t place, std::int64_t epoch, PhiloxKey key) const {
  const Type& type = *std::prev(std::upper_bound(types_.begin(), types_.end(), place, [](auto p, const Type& t) { return p < t.begin; }));
  const std::int64_t visit = epoch * type.places + (place - type.begin), pass = visit / type.cells;
  const Philox drawn = draw(key, static_cast<std::uint64_t>(type.first), static_cast<std::uint32_t>(pass));
  const Permutation permutation(type.cells, {{drawn.word[0], drawn.word[1]}});
  return by_type_[static_cast<std::size_t>(type.first + permutation(visit % type.cells))];
}

SampleOrder::SampleOrder(CellSet cells, OrderSetup setup) : cells_(std::move(cells)), setup_(std::move(setup)) {
  batches_ = cells_.size() / setup_.batch_size;
  if (batches_ == 0) {
    throw UsageError(
        fmt::format("train.batch_size: wanted at most the {} cells there are to train on, got {}", cells_.size(), setup_.batch_size));
  }
  window_ = std::clamp<std::int64_t>(batches_ / 4, 1, kLargestWindow);
  if (setup_.type) shares_.emplace(cells_, batches_ * setup_.batch_size, setup_.type);
}

std::int64_t steps_of_epochs(double epochs, std::int64_t cells, std::int64_t batch_size) {
  const std::int64_t steps = std::llround(epochs * static_cast<double>(cells / batch_size));
  if (steps > 0) return steps;
  throw UsageError(
      fmt::format("epochs: wanted at least one step, got {} epochs of {} batches; give more, or steps", epochs, cells / batch_size));
}

std::int64_t SampleOrder::steps_of(double epochs) const { return steps_of_epochs(epochs, cells_.size(), setup_.batch_size); }

std::int64_t SampleOrder::window_size(std::int64_t number) const { return std::min(window_, batches_ - number * window_); }

std::vector<SampleOrder::Sample> SampleOrder::window(std::int64_t epoch, std::int64_t number) const {
  const std::int64_t places = shares_ ? batches_ * setup_.batch_size : cells_.size();
  const Permutation permutation(places, setup_.seed, setup_.stage, static_cast<std::uint32_t>(epoch));
  const PhiloxKey key = key_of(Draw::within_type, setup_.seed, setup_.stage, 0);
  const std::int64_t first = number * window_ * setup_.batch_size;
  std::vector<Sample> samples(static_cast<std::size_t>(window_size(number) * setup_.batch_size));
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const std::int64_t place = permutation(first + static_cast<std::int64_t>(i));
    samples[i].cell = shares_ ? shares_->cell(place, epoch, key) : cells_[place];
  }
  for (Sample& sample : samples) sample.length = setup_.length(sample.cell);  // apart: the memory of several is fetched at once
  // Equal lengths stay in the permutation's order: where all cells are cut to one length, the file's order must not decide who meets whom.
  std::stable_sort(samples.begin(), samples.end(), longer);
  return shares_ ? without_repeats(samples, epoch, number) : samples;
}

// Each sample goes to the first batch with room that lacks it. Where all have it, because its type is so small that it would have to come
// more than once a batch, a cell drawn evenly from all takes its place.
std::vector<SampleOrder::Sample> SampleOrder::without_repeats(const std::vector<Sample>& sorted, std::int64_t epoch,
                                                              std::int64_t number) const {
  const auto size = static_cast<std::size_t>(setup_.batch_size);
  std::vector<std::vector<Sample>> batches(sorted.size() / size);
  std::vector<std::unordered_set<std::int64_t>> taken(batches.size());
  std::size_t open = 0;
  for (const Sample& sample : sorted) {
    std::size_t b = open;
    while (b < batches.size() && (batches[b].size() == size || taken[b].contains(sample.cell))) ++b;
    if (b == batches.size()) continue;
    batches[b].push_back(sample), taken[b].insert(sample.cell);
    while (open < batches.size() && batches[open].size() == size) ++open;
  }
  const PhiloxKey key = key_of(Draw::another, setup_.seed, setup_.stage, static_cast<std::uint32_t>(epoch));
  std::vector<Sample> all;
  for (std::size_t b = 0, draws = 0; b < batches.size(); ++b) {
    while (batches[b].size() < size) {
      const std::uint64_t chance = bits64(draw(key, static_cast<std::uint64_t>(number), static_cast<std::uint32_t>(draws++)));
      const std::int64_t cell = cells_[static_cast<std::int64_t>(chance % static_cast<std::uint64_t>(cells_.size()))];
      if (taken[b].insert(cell).second) batches[b].push_back({setup_.length(cell), cell});
    }
    std::stable_sort(batches[b].begin(), batches[b].end(), longer);
    all.insert(all.end(), batches[b].begin(), batches[b].end());
  }
  return all;
}

// Which sorted batch of the window stands at each of its places (Fisher–Yates).
std::vector<std::int64_t> SampleOrder::shuffled(std::int64_t epoch, std::int64_t number) const {
  const PhiloxKey key = key_of(Draw::shuffle, setup_.seed, setup_.stage, static_cast<std::uint32_t>(epoch));
  std::vector<std::int64_t> places(static_cast<std::size_t>(window_size(number)));
  std::iota(places.begin(), places.end(), 0);
  for (std::size_t i = places.size(); i > 1; --i) {
    const Philox r = draw(key, static_cast<std::uint64_t>(number), static_cast<std::uint32_t>(i));
    std::swap(places[i - 1], places[static_cast<std::size_t>(static_cast<std::uint64_t>(r.word[0]) * i >> 32)]);
  }
  return places;
}

// In each window the longest batch is the first of the sorted ones.
std::int64_t SampleOrder::find_longest() const {
  std::int64_t most = -1, at = 0;
  for (std::int64_t number = 0; number < kWindowsSearched && number * window_ < batches_; ++number) {
    const std::vector<Sample> samples = window(0, number);
    std::int64_t tokens = 0;
    for (std::int64_t i = 0; i < setup_.batch_size; ++i) tokens += samples[static_cast<std::size_t>(i)].length;
    if (tokens <= most) continue;
    const std::vector<std::int64_t> places = shuffled(0, number);
    most = tokens, at = number * window_ + (std::find(places.begin(), places.end(), 0) - places.begin());
  }
  return at;
}

Samples SampleOrder::batch(std::int64_t step) {
  const std::int64_t epoch = step / batches_;
  std::int64_t number = step % batches_;
  if (epoch == 0 && longest_ < 0) longest_ = find_longest();
  if (epoch == 0 && (number == 0 || number == longest_)) number = longest_ - number;
  const std::int64_t in_window = number / window_;
  if (epoch != kept_epoch_ || in_window != kept_number_) {
    kept_ = window(epoch, in_window);
    kept_epoch_ = epoch, kept_number_ = in_window;
  }
  const std::int64_t sorted = shuffled(epoch, in_window)[static_cast<std::size_t>(number % window_)];
  Samples samples;
  for (std::int64_t i = sorted * setup_.batch_size; i < (sorted + 1) * setup_.batch_size; ++i)
    samples.push_back(kept_[static_cast<std::size_t>(i)].cell);
  return samples;
}

namespace {

struct Hand {  // what one rank holds: positions in the batch
  std::vector<std::size_t> samples;
  std::int64_t tokens = 0;
};

// The swap between the fullest and the emptiest hand that brings them closest; false when none does.
bool swap_once(std::vector<Hand>& hands, const std::vector<std::int64_t>& lengths) {
  const auto by_tokens = [](const Hand& a, const Hand& b) { return a.tokens < b.tokens; };
  const auto [low, high] = std::minmax_element(hands.begin(), hands.end(), by_tokens);
  const std::int64_t gap = high->tokens - low->tokens;
  std::int64_t best = gap;
  std::pair<std::size_t*, std::size_t*> pick{nullptr, nullptr};
  for (std::size_t& give : high->samples) {
    for (std::size_t& take : low->samples) {
      const std::int64_t moved = lengths[give] - lengths[take], left = std::abs(gap - 2 * moved);
      if (left < best) best = left, pick = {&give, &take};
    }
  }
  if (!pick.first) return false;
  const std::int64_t moved = lengths[*pick.first] - lengths[*pick.second];
  high->tokens -= moved, low->tokens += moved;
  std::swap(*pick.first, *pick.second);
  return true;
}

}  // namespace

std::vector<Samples> micro_batches(const Samples& batch, const std::function<std::int64_t(std::int64_t)>& length, const Share& share) {
  const auto ranks = static_cast<std::size_t>(share.ranks), pieces = static_cast<std::size_t>(share.micro_batches);
  if (batch.size() % (ranks * pieces) != 0) {
    throw UsageError(
        fmt::format("train.batch_size: wanted a multiple of {} ranks × {} micro-batches, got {}", ranks, pieces, batch.size()));
  }
  std::vector<std::int64_t> lengths;
  for (const std::int64_t cell : batch) lengths.push_back(length(cell));
  std::vector<Hand> hands(ranks);
  for (std::size_t i = 0; i < batch.size(); ++i) {  // there and back, as one deals cards of falling value
    const std::size_t round = i / ranks, place = i % ranks;
    Hand& hand = hands[round % 2 == 0 ? place : ranks - 1 - place];
    hand.samples.push_back(i), hand.tokens += lengths[i];
  }
  constexpr int kMostSwaps = 64;
  for (int i = 0; ranks > 1 && i < kMostSwaps && swap_once(hands, lengths); ++i) {}

  std::vector<std::size_t>& own = hands[static_cast<std::size_t>(share.rank)].samples;
  std::sort(own.begin(), own.end());
  std::vector<Samples> parts(pieces);
  for (std::size_t i = 0; i < own.size(); ++i) parts[i * pieces / own.size()].push_back(batch[own[i]]);
  return parts;
}

}  // namespace lc
