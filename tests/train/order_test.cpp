#include "train/order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>
#include <set>

#include "engine/errors.h"
#include "tests/support/expect_error.h"

namespace lc {
namespace {

CellSet all_of(std::int64_t cells) {
  return CellSet(cells, [](std::int64_t) { return true; });
}

// Lengths that look drawn, from 17 to 1040; the mean is about 300.
std::int64_t length_of(std::int64_t cell) {
  const auto h = static_cast<std::uint64_t>(cell + 1) * 0x9E3779B97F4A7C15ull >> 40;
  const double u = static_cast<double>(h) / 0x1p24;
  return 17 + static_cast<std::int64_t>(1023 * u * u * u);
}

SampleOrder order_of(std::int64_t cells, std::int64_t batch, std::uint64_t seed = 5, std::uint32_t stage = 1) {
  return SampleOrder(all_of(cells), {seed, stage, batch, length_of});
}

std::int64_t tokens_of(const Samples& samples) {
  return std::accumulate(samples.begin(), samples.end(), std::int64_t{0},
                         [](std::int64_t sum, std::int64_t cell) { return sum + length_of(cell); });
}

TEST(Permutation, HitsEveryNumberOnce) {
  for (const std::int64_t size : {1, 2, 3, 4, 5, 33, 64, 65, 1000, 4097}) {
    const Permutation permutation(size, 3, 1, 0);
    std::vector<bool> seen(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i) {
      const std::int64_t at = permutation(i);
      ASSERT_TRUE(at >= 0 && at < size);
      EXPECT_FALSE(seen[static_cast<std::size_t>(at)]) << size;
      seen[static_cast<std::size_t>(at)] = true;
    }
  }
}

TEST(Permutation, WorksOnSizesThatNoListWouldHold) {
  const std::int64_t size = (std::int64_t{1} << 40) + 7;
  const Permutation permutation(size, 3, 1, 0);
  std::set<std::int64_t> seen;
  for (std::int64_t i = 0; i < 1000; ++i) seen.insert(permutation(i));
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_GT(*seen.rbegin(), size / 2);
  EXPECT_LT(*seen.rbegin(), size);
}

// Mean displacement of a random permutation of n is n/3; its number of neighbours that stay neighbours is about 2.
TEST(Permutation, LooksLikeChance) {
  for (const std::uint32_t epoch : {0u, 1u, 2u}) {
    const std::int64_t size = 5003;
    const Permutation permutation(size, 11, 2, epoch);
    double displacement = 0;
    int neighbours = 0, fixed = 0;
    for (std::int64_t i = 0; i < size; ++i) {
      displacement += static_cast<double>(std::abs(permutation(i) - i));
      neighbours += i > 0 && std::abs(permutation(i) - permutation(i - 1)) == 1;
      fixed += permutation(i) == i;
    }
    EXPECT_NEAR(displacement / static_cast<double>(size * size), 1.0 / 3, 0.02);
    EXPECT_LE(neighbours, 10);
    EXPECT_LE(fixed, 8);
  }
}

TEST(Permutation, ChangesWithSeedStageAndEpoch) {
  const auto first = [](std::uint64_t seed, std::uint32_t stage, std::uint32_t epoch) {
    const Permutation p(1000003, seed, stage, epoch);
    return std::vector<std::int64_t>{p(0), p(1), p(2)};
  };
  EXPECT_EQ(first(1, 1, 0), first(1, 1, 0));
  EXPECT_NE(first(1, 1, 0), first(2, 1, 0));
  EXPECT_NE(first(1, 1, 0), first(1, 2, 0));
  EXPECT_NE(first(1, 1, 0), first(1, 1, 1));
  EXPECT_NE(first(1, 1, 0), first(std::uint64_t{1} << 32 | 1, 1, 0));
}

TEST(CellSet, GivesItsMembersInOrder) {
  for (const std::int64_t cells : {0, 1, 63, 64, 65, 511, 512, 513, 3001}) {
    const auto chosen = [](std::int64_t c) { return c % 3 == 1 || (c > 600 && c < 1800); };
    std::vector<std::int64_t> wanted;
    for (std::int64_t c = 0; c < cells; ++c) {
      if (chosen(c)) wanted.push_back(c);
    }
    const CellSet set(cells, chosen);
    ASSERT_EQ(set.size(), std::ssize(wanted));
    for (std::int64_t k = 0; k < set.size(); ++k) EXPECT_EQ(set[k], wanted[static_cast<std::size_t>(k)]);
  }
  const CellSet sparse(5000, [](std::int64_t c) { return c == 4999; });
  EXPECT_EQ(sparse[0], 4999);
}

TEST(Order, ACellComesAtMostOnceAnEpochAndOnlyThoseWithoutABatchAreMissing) {
  SampleOrder order = order_of(1003, 10);
  ASSERT_EQ(order.batches_per_epoch(), 100);
  std::set<std::int64_t> missing_once;
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<std::int64_t> seen;
    for (std::int64_t i = 0; i < 100; ++i) {
      const Samples batch = order.batch(epoch * 100 + i);
      ASSERT_EQ(batch.size(), 10u);
      for (const std::int64_t cell : batch) EXPECT_TRUE(seen.insert(cell).second) << cell;
    }
    EXPECT_EQ(seen.size(), 1000u);
    for (std::int64_t c = 0; c < 1003; ++c) {
      if (!seen.contains(c)) missing_once.insert(c);
    }
  }
  EXPECT_GE(missing_once.size(), 7u) << "not always the same cells are left out";
}

TEST(Order, IsAFunctionOfTheStepAlone) {
  SampleOrder order = order_of(777, 7), again = order_of(777, 7);
  std::vector<Samples> forwards;
  for (std::int64_t step = 0; step < 250; ++step) forwards.push_back(order.batch(step));
  for (std::int64_t step = 249; step >= 0; step -= 3) EXPECT_EQ(again.batch(step), forwards[static_cast<std::size_t>(step)]) << step;
  EXPECT_NE(order_of(777, 7, 6).batch(3), forwards[3]);
  EXPECT_NE(order_of(777, 7, 5, 2).batch(3), forwards[3]);
  EXPECT_NE(forwards[3], forwards[3 + 111]) << "another epoch";
}

TEST(Order, FewCellsMeetOthersInEveryEpoch) {
  SampleOrder order = order_of(77, 7), fresh = order_of(77, 7);
  std::set<std::set<std::int64_t>> batches;
  for (std::int64_t step = 0; step < 44; ++step) {
    const Samples batch = order.batch(step);
    batches.insert({batch.begin(), batch.end()});
  }
  EXPECT_EQ(batches.size(), 44u);
  SampleOrder two_batches = order_of(10, 5), anew = order_of(10, 5);
  (void)two_batches.batch(0);
  EXPECT_EQ(two_batches.batch(2), anew.batch(2)) << "the window kept from the last epoch is not this one's";
}

// Types of 2,000, 500, 80 and 5 cells in turn along the file, as cells of one donor stand beside those of the next.
std::int32_t type_of(std::int64_t cell) {
  const std::int64_t place = cell % 2585 * 1009 % 2585;
  return place < 2000 ? 30 : place < 2500 ? 20 : place < 2580 ? -7 : -1;
}

SampleOrder by_type(std::int64_t cells, std::int64_t batch, std::uint64_t seed = 5) {
  return SampleOrder(all_of(cells), {seed, 1, batch, length_of, type_of});
}

TEST(OrderByType, ACellsChanceFallsWithTheRootOfTheSizeOfItsType) {
  SampleOrder order = by_type(2585, 16);
  const std::int64_t epochs = 12, batches = order.batches_per_epoch();
  ASSERT_EQ(batches, 2585 / 16);
  std::map<std::int32_t, double> drawn;
  std::map<std::int64_t, int> times;
  for (std::int64_t step = 0; step < epochs * batches; ++step) {
    const Samples batch = order.batch(step);
    EXPECT_EQ((std::set<std::int64_t>(batch.begin(), batch.end()).size()), 16u) << step;
    for (std::size_t i = 1; i < batch.size(); ++i) EXPECT_GE(length_of(batch[i - 1]), length_of(batch[i]));
    for (const std::int64_t cell : batch) ++drawn[type_of(cell)], ++times[cell];
  }
  const double all = std::sqrt(2000) + std::sqrt(500) + std::sqrt(80) + std::sqrt(5), places = static_cast<double>(epochs * batches * 16);
  for (const auto& [type, size] : {std::pair{30, 2000}, {20, 500}, {-7, 80}, {-1, 5}})
    EXPECT_NEAR(drawn[type], places * std::sqrt(size) / all, 0.01 * places * std::sqrt(size) / all + 1) << type;
  for (const auto& [type, size] : {std::pair{30, 2000}, {20, 500}, {-7, 80}}) {  // within a type about equally often
    int fewest = 1 << 30, most = 0;
    for (std::int64_t c = 0; c < 2585; ++c)
      if (type_of(c) == type) fewest = std::min(fewest, times[c]), most = std::max(most, times[c]);
    EXPECT_LE(most - fewest, 4) << type;
  }
}

TEST(OrderByType, IsAFunctionOfTheStepAlone) {
  SampleOrder order = by_type(700, 7), again = by_type(700, 7);
  std::vector<Samples> forwards;
  for (std::int64_t step = 0; step < 250; ++step) forwards.push_back(order.batch(step));
  for (std::int64_t step = 249; step >= 0; step -= 3) EXPECT_EQ(again.batch(step), forwards[static_cast<std::size_t>(step)]) << step;
  EXPECT_NE(by_type(700, 7, 6).batch(3), forwards[3]);
  EXPECT_NE(forwards[3], forwards[103]) << "another epoch";
}

// Two types, one of a single cell: its share is a third of every batch, it can only be one sample of each.
TEST(OrderByType, ACellIsNeverTwiceInABatchHoweverLargeItsShare) {
  SampleOrder order(all_of(41), {3, 1, 8, length_of, [](std::int64_t c) { return c == 17 ? 1 : 2; }});
  int with = 0;
  for (std::int64_t step = 0; step < 50; ++step) {
    const Samples batch = order.batch(step);
    ASSERT_EQ((std::set<std::int64_t>(batch.begin(), batch.end()).size()), 8u) << step;
    with += std::count(batch.begin(), batch.end(), 17) > 0;
  }
  EXPECT_GE(with, 25);  // evenly it would be 10
}

TEST(OrderByType, OneTypeAloneComesEvenly) {
  SampleOrder order(all_of(96), {3, 1, 8, length_of, [](std::int64_t) { return 4; }});
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<std::int64_t> seen;
    for (std::int64_t i = 0; i < 12; ++i)
      for (const std::int64_t cell : order.batch(epoch * 12 + i)) EXPECT_TRUE(seen.insert(cell).second) << cell;
  }
}

TEST(Order, TakesOnlyCellsOfItsSet) {
  SampleOrder order(CellSet(300, [](std::int64_t c) { return c % 3 == 0; }), {1, 1, 10, length_of});
  EXPECT_EQ(order.batches_per_epoch(), 10);
  for (std::int64_t step = 0; step < 30; ++step) {
    for (const std::int64_t cell : order.batch(step)) EXPECT_EQ(cell % 3, 0);
  }
}

TEST(Order, TheFirstStepOfAStageRunsOnTheLongestBatchOfItsFirstEpoch) {
  for (const std::uint64_t seed : {0u, 1u, 2u, 3u}) {
    SampleOrder order = order_of(2111, 16, seed);
    const std::int64_t first = tokens_of(order.batch(0));
    for (std::int64_t step = 1; step < order.batches_per_epoch(); ++step) EXPECT_LE(tokens_of(order.batch(step)), first);
  }
}

TEST(Order, StartingLooksAtNoMoreCellsOfALargeCorpus) {
  constexpr std::int64_t kSearched = SampleOrder::kWindowsSearched * SampleOrder::kLargestWindow * 8;
  std::int64_t asked = 0;
  SampleOrder order(all_of(5'000'000), {5, 1, 8, [&](std::int64_t cell) { return ++asked, length_of(cell); }});
  EXPECT_EQ(asked, 0);
  const std::int64_t first = tokens_of(order.batch(0));
  EXPECT_LE(asked, kSearched + SampleOrder::kLargestWindow * 8);
  for (std::int64_t step = 1; step < kSearched / 8; ++step) EXPECT_LE(tokens_of(order.batch(step)), first);
}

TEST(Order, ABatchHoldsCellsOfAboutOneLength) {
  SampleOrder order = order_of(5000, 16);
  double padded = 0, tokens = 0;
  for (std::int64_t step = 0; step < order.batches_per_epoch(); ++step) {
    const Samples batch = order.batch(step);
    EXPECT_TRUE(std::is_sorted(batch.begin(), batch.end(), [](std::int64_t a, std::int64_t b) { return length_of(a) > length_of(b); }));
    padded += 16.0 * static_cast<double>(length_of(batch.front())), tokens += static_cast<double>(tokens_of(batch));
  }
  EXPECT_LT(padded / tokens, 1.15) << "random batches of these lengths would pad to about three times their tokens";
}

TEST(Order, LongBatchesAreSpreadOverTheWindow) {
  SampleOrder order = order_of(32 * 16 * 4, 16);
  double first_half = 0, all = 0;
  for (std::int64_t step = 32; step < 128; ++step) {
    const auto tokens = static_cast<double>(tokens_of(order.batch(step)));
    all += tokens, first_half += step % 32 < 16 ? tokens : 0;
  }
  EXPECT_NEAR(first_half / all, 0.5, 0.15);
}

TEST(Order, AsksForCellsThatFillABatch) {
  const std::string message = test::message_of<UsageError>([] { order_of(9, 10); });
  EXPECT_TRUE(test::holds(message, "train.batch_size: wanted at most the 9 cells there are to train on, got 10"));
  EXPECT_EQ(order_of(10, 10).batch(4).size(), 10u);
}

TEST(Order, EpochsBecomeSteps) {
  const SampleOrder order = order_of(1003, 10);
  EXPECT_EQ(order.steps_of(1), 100);
  EXPECT_EQ(order.steps_of(0.255), 26);
  EXPECT_EQ(order.epoch_of(99), 0);
  EXPECT_EQ(order.epoch_of(100), 1);
  EXPECT_EQ(steps_of_epochs(0.005, 1003, 10), 1);
  EXPECT_TRUE(test::holds(test::message_of<UsageError>([&] { (void)order.steps_of(0.004); }), "wanted at least one step"));
}

TEST(Holdout, TakesItsShareAndNeverDividesAGroup) {
  int held = 0;
  for (std::int64_t c = 0; c < 20000; ++c) {
    held += is_held_out(3, 0.2, c);
    EXPECT_TRUE(!is_held_out(3, 0.1, c) || is_held_out(3, 0.2, c)) << "a larger share holds the smaller one";
  }
  EXPECT_NEAR(held, 4000, 200);
  int groups = 0;
  for (int g = 0; g < 1000; ++g) groups += is_held_out(3, 0.2, "donor " + std::to_string(g));
  EXPECT_NEAR(groups, 200, 50);
  EXPECT_FALSE(is_held_out(3, 0, std::int64_t{5}));
}

TEST(MicroBatches, AreContiguousPiecesOfTheSortedBatch) {
  SampleOrder order = order_of(500, 12);
  const Samples batch = order.batch(2);
  const auto parts = micro_batches(batch, length_of, {.micro_batches = 3});
  ASSERT_EQ(parts.size(), 3u);
  Samples joined;
  for (const Samples& part : parts) {
    EXPECT_EQ(part.size(), 4u);
    joined.insert(joined.end(), part.begin(), part.end());
  }
  EXPECT_EQ(joined, batch);
  EXPECT_THROW(micro_batches(batch, length_of, {.micro_batches = 5}), UsageError);
}

TEST(MicroBatches, SwapsMendWhatDealingLeavesUneven) {
  const std::vector<std::int64_t> lengths{20, 10, 9, 8, 2, 1};  // dealt there and back: 30 and 20
  const auto length = [&](std::int64_t cell) { return lengths[static_cast<std::size_t>(cell)]; };
  std::int64_t tokens[2] = {0, 0};
  for (const int rank : {0, 1}) {
    const auto parts = micro_batches({0, 1, 2, 3, 4, 5}, length, {.rank = rank, .ranks = 2});
    for (const std::int64_t cell : parts.at(0)) tokens[rank] += length(cell);
  }
  EXPECT_EQ(tokens[0] + tokens[1], 50);
  EXPECT_LE(std::abs(tokens[0] - tokens[1]), 4);
}

TEST(MicroBatches, RanksShareTheTokensWithinTwoPerCent) {
  for (const int ranks : {2, 3, 4, 8}) {
    SampleOrder order = order_of(3000, 240);
    for (std::int64_t step = 0; step < 12; ++step) {
      const Samples batch = order.batch(step);
      std::multiset<std::int64_t> together;
      std::int64_t least = INT64_MAX, most = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        std::int64_t tokens = 0;
        for (const Samples& part : micro_batches(batch, length_of, {rank, ranks, 2})) {
          EXPECT_EQ(std::ssize(part), 240 / ranks / 2);
          tokens += tokens_of(part);
          together.insert(part.begin(), part.end());
        }
        least = std::min(least, tokens), most = std::max(most, tokens);
      }
      EXPECT_EQ(together, std::multiset<std::int64_t>(batch.begin(), batch.end()));
      EXPECT_LE(static_cast<double>(most - least), 0.02 * static_cast<double>(least)) << ranks << " ranks, step " << step;
    }
  }
}

}  // namespace
}  // namespace lc
