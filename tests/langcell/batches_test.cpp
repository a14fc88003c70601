// Packing, masking and sorting of batches, beside the plainest form of each.
#include "models/langcell/data/batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace lc {
namespace {

Sequences some_sequences() {
  Sequences s;
  std::mt19937 random(3);
  std::uint64_t key = 5;
  for (const int length : {1, 0, 31, 32, 33, 200}) {
    std::vector<std::int32_t> ids = {99};  // <cls>
    for (int i = 1; i < length; ++i) ids.push_back(2 + static_cast<std::int32_t>(random() % 97));
    ids.resize(static_cast<std::size_t>(length));
    s.add(ids, sequence_key(Pass::masked, key += 7));
  }
  return s;
}

TEST(Masking, DrawsForEachPlaceOfASequenceByItsKey) {
  const Sequences clean = some_sequences();
  const MaskRule rule{0.3f, {{11, 12}}, 100};
  Sequences wanted = clean;
  std::vector<std::int32_t> rows, labels;
  std::int32_t row = 0;
  for (std::size_t b = 0; b < clean.count(); ++b) {
    const std::uint64_t key = clean.packing.keys[b];
    for (std::int32_t place = 0; place < clean.packing.lengths[b]; ++place, ++row) {
      const Philox r = philox<10>(
          {{static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32), 0x7fffffffu, static_cast<std::uint32_t>(place)}},
          rule.chance);
      if (clean.ids[row] == 99 || r.word[0] * 0x1p-32 >= rule.rate) continue;
      rows.push_back(row), labels.push_back(clean.ids[row]);
      if (r.word[1] * 0x1p-32 < 0.8)
        wanted.ids[row] = 1;
      else if (r.word[1] * 0x1p-32 < 0.9)
        wanted.ids[row] = 2 + static_cast<std::int32_t>(r.word[2] * 0x1p-32 * 97);
    }
  }
  const MaskedSequences masked = mask_genes(clean, rule);
  EXPECT_EQ(masked.rows, rows);
  EXPECT_EQ(masked.labels, labels);
  EXPECT_EQ(masked.sequences.ids, wanted.ids);
  EXPECT_NEAR(static_cast<double>(rows.size()) / 292, 0.3, 0.1);
}

TEST(Upload, SortsRowsByIdAndKeepsThoseOfOneIdInOrder) {
  const Sequences s = some_sequences();
  std::vector<std::int32_t> wanted(s.ids.size());
  std::iota(wanted.begin(), wanted.end(), 0);
  std::stable_sort(wanted.begin(), wanted.end(), [&](std::int32_t a, std::int32_t b) { return s.ids[a] < s.ids[b]; });
  EXPECT_EQ(upload(s, Purpose::training).by_id.to_host<std::int32_t>(), wanted);
  EXPECT_EQ(upload(Sequences{}, Purpose::training).by_id.rows(), upload(Sequences{}, Purpose::training).ids.rows());
}

}  // namespace
}  // namespace lc
