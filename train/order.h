// Which sample comes when: a pure function of (seed, stage, epoch, number), in memory of one bit per cell. An epoch is a keyed permutation
// of the training cells, cut into windows of up to 32 batches; a window is sorted by length, cut into batches, and its batches are
// shuffled, so the sequences of a batch are of about one length. With types given, a cell's chance falls with the root of the size of its
// type: of the places of an epoch a type gets a share in proportion to the root of its size, and fills them with its cells in a keyed
// order, every one before any comes again, over all epochs. That takes eight bytes per cell more. The first step of a stage runs on the
// longest batch of its first epoch's first 64 windows: half a million cells at the usual sizes, so that starting takes as long for a
// hundred million.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/chance.h"

namespace lc {

using Samples = std::vector<std::int64_t>;  // cell numbers of the dataset

// A bijection of [0, size) in constant memory: an alternating Feistel network whose rounds are Philox calls, with cycle walking.
class Permutation {
 public:
  Permutation(std::int64_t size, std::uint64_t seed, std::uint32_t stage, std::uint32_t epoch);
  Permutation(std::int64_t size, PhiloxKey key);
  std::int64_t operator()(std::int64_t i) const;

 private:
  std::uint64_t size_;
  PhiloxKey key_;
  int high_bits_ = 0, low_bits_ = 0;
};

// Some of the cells [0, cells), one bit each, with the k-th in about constant time.
class CellSet {
 public:
  CellSet(std::int64_t cells, const std::function<bool(std::int64_t)>& contains);
  std::int64_t size() const { return before_.back(); }
  std::int64_t operator[](std::int64_t k) const;

 private:
  std::int64_t cells_;
  std::vector<std::uint64_t> bits_;
  std::vector<std::int64_t> before_;  // members before each block of 8 words; the last entry: all
};

// Whether a cell, or all cells of a group, are set aside for validation; never depends on which others there are.
bool is_held_out(std::uint64_t seed, double share, std::int64_t cell);
bool is_held_out(std::uint64_t seed, double share, const std::string& group);

struct OrderSetup {
  std::uint64_t seed = 0;
  std::uint32_t stage = 1;
  std::int64_t batch_size = 256;                     // over all ranks
  std::function<std::int64_t(std::int64_t)> length;  // tokens of a cell
  std::function<std::int32_t(std::int64_t)> type{};  // its type, any number; empty: every cell comes once an epoch
};

// The cells of each type, and their places among the `places` of an epoch.
class TypeShares {
 public:
  TypeShares(const CellSet& cells, std::int64_t places, const std::function<std::int32_t(std::int64_t)>& type);
  struct Type {
    std::int32_t name = 0;
    std::int64_t first = 0, cells = 0;   // of the list by type
    std::int64_t begin = 0, places = 0;  // of an epoch
  };
  const std::vector<Type>& types() const { return types_; }
  // The cell at a place of an epoch, before the places are shuffled. key: of (seed, stage).
  std::int64_t cell(std::int64_t place, std::int64_t epoch, PhiloxKey key) const;

 private:
  std::vector<Type> types_;
  std::vector<std::int64_t> by_type_;
};

// Steps of whole batches; UsageError where that is not even one.
std::int64_t steps_of_epochs(double epochs, std::int64_t cells, std::int64_t batch_size);

class SampleOrder {
 public:
  static constexpr std::int64_t kLargestWindow = 32;    // batches
  static constexpr std::int64_t kWindowsSearched = 64;  // for the longest batch

  SampleOrder(CellSet cells, OrderSetup setup);  // UsageError when the cells do not fill one batch
  std::int64_t batches_per_epoch() const { return batches_; }
  std::int64_t steps_of(double epochs) const;  // see steps_of_epochs
  std::int64_t epoch_of(std::int64_t step) const { return step / batches_; }

  // The samples of a step, which counts from 0 within the stage; the longest first, ties as drawn; none twice.
  Samples batch(std::int64_t step);
  const TypeShares* shares() const { return shares_ ? &*shares_ : nullptr; }  // null: no types

 private:
  struct Sample {
    std::int64_t length, cell;
  };
  static bool longer(const Sample& a, const Sample& b) { return a.length > b.length; }
  std::vector<Sample> window(std::int64_t epoch, std::int64_t number) const;  // sorted, longest first
  std::int64_t window_size(std::int64_t number) const;                        // in batches
  std::vector<Sample> without_repeats(const std::vector<Sample>& sorted, std::int64_t epoch, std::int64_t number) const;
  std::vector<std::int64_t> shuffled(std::int64_t epoch, std::int64_t number) const;
  std::int64_t find_longest() const;

  CellSet cells_;
  OrderSetup setup_;
  std::optional<TypeShares> shares_;
  std::int64_t batches_ = 0, window_ = 1;            // of an epoch; of a window: a quarter at most, or few cells would always meet the same
  std::int64_t longest_ = -1;                        // the number that batch 0 of epoch 0 changes places with; looked for when needed
  std::int64_t kept_epoch_ = -1, kept_number_ = -1;  // the window that was computed last
  std::vector<Sample> kept_;
};

// What one rank does of a batch, in micro-batches of equally many samples, longest samples first. Ranks get equally many samples and token
// counts as equal as swaps make them.
struct Share {
  int rank = 0, ranks = 1;
  std::int64_t micro_batches = 1;
};
std::vector<Samples> micro_batches(const Samples& batch, const std::function<std::int64_t(std::int64_t)>& length, const Share& share);

}  // namespace lc
