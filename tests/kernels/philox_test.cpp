// Chance: Philox against the known answers of Random123, and which element of a dropout mask gets which bits, as golden
// values of an independent computation. A change here changes every trained model and every device.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <array>
#include <cmath>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/kernels.h"

namespace lc::test {
namespace {

using Words = std::array<std::uint32_t, 4>;
Words words(const Philox& p) { return {p.word[0], p.word[1], p.word[2], p.word[3]}; }
constexpr std::uint32_t kOnes = 0xffffffffu;
constexpr Philox kPi{{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}};
constexpr PhiloxKey kPiKey{{0xa4093822u, 0x299f31d0u}};

TEST(Philox, ten_rounds_give_the_known_answers) {
  EXPECT_EQ(words(philox<10>({}, {})), (Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(words(philox<10>({{kOnes, kOnes, kOnes, kOnes}}, {{kOnes, kOnes}})),
            (Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(words(philox<10>(kPi, kPiKey)), (Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(Philox, seven_rounds_give_the_known_answers) {
  EXPECT_EQ(words(philox<7>({}, {})), (Words{0x5f6fb709u, 0x0d893f64u, 0x4f121f81u, 0x4f730a48u}));
  EXPECT_EQ(words(philox<7>({{kOnes, kOnes, kOnes, kOnes}}, {{kOnes, kOnes}})),
            (Words{0x5207ddc2u, 0x45165e59u, 0x4d8ee751u, 0x8c52f662u}));
  EXPECT_EQ(words(philox<7>(kPi, kPiKey)), (Words{0x4dfccabau, 0x190a87f0u, 0xc47362bau, 0xb6b5242au}));
}

// ---- the layout: seed 0x0123456789abcdef, stage 2, step 1000, pair_pos of sample 123456789, site 17, head 5
const PhiloxKey kStep = chance_of_step(0x0123456789abcdefull, 2, 1000);
const std::uint64_t kSequence = sequence_key(Pass::pair_pos, 123456789);
constexpr int kHead = 5;
Dropout at_rate(float rate) { return {rate, kStep, 17}; }

std::uint32_t attention_byte(const Dropout& d, std::uint64_t sequence, int head, int row, int column) {
  const int lane = row % 8 * 4 + column % 8 / 2, byte = row % 16 / 8 * 2 + column % 2;
  const Philox bits = attention_bits(d, sequence, head, row / 16, attention_column_block_and_lane(column / 32, lane));
  return bits.word[column % 32 / 8] >> (8 * byte) & 0xff;
}
std::uint32_t hidden_byte(const Dropout& d, std::uint64_t sequence, int row, int column) {
  return hidden_bits(d, sequence, row, column / 16).word[column % 16 / 4] >> (8 * (column % 4)) & 0xff;
}

TEST(Chance, key_of_a_step_has_its_golden_value) {
  EXPECT_EQ(kStep.word[0], 0xb234255fu);
  EXPECT_EQ(kStep.word[1], 0xa29656eau);
}

TEST(Chance, attention_elements_have_their_golden_bytes) {
  constexpr std::uint32_t golden[][3] = {{0, 0, 140},   {0, 1, 67},  {0, 2, 114},  {1, 0, 241},   {8, 0, 12},
                                         {15, 31, 248}, {16, 0, 28}, {0, 32, 243}, {37, 70, 147}, {2047, 2047, 164}};
  for (const auto& [row, column, byte] : golden) {
    EXPECT_EQ(attention_byte(at_rate(0.1f), kSequence, kHead, static_cast<int>(row), static_cast<int>(column)), byte)
        << row << ", " << column;
  }
}

TEST(Chance, hidden_elements_have_their_golden_bytes) {
  constexpr std::uint32_t golden[][3] = {{0, 0, 235}, {0, 1, 20}, {0, 4, 82}, {0, 16, 224}, {1, 0, 32}, {511, 767, 25}, {2047, 511, 137}};
  for (const auto& [row, column, byte] : golden) {
    EXPECT_EQ(hidden_byte(at_rate(0.1f), kSequence, static_cast<int>(row), static_cast<int>(column)), byte) << row << ", " << column;
  }
}

TEST(Chance, thresholds_are_dithered_by_row_block_as_the_golden_values_say) {
  constexpr std::uint32_t at_2[] = {251, 251, 251, 251, 251, 250, 251, 251}, at_10[] = {230, 231, 230, 231, 231, 230, 230, 230};
  for (int block = 0; block < 8; ++block) {
    EXPECT_EQ(keep_threshold(at_rate(0.02f), kSequence, kHead, block), at_2[block]) << block;
    EXPECT_EQ(keep_threshold(at_rate(0.1f), kSequence, kHead, block), at_10[block]) << block;
  }
}

TEST(Chance, share_of_kept_attention_weights_is_one_minus_the_rate) {
  constexpr int kRows = 16, kBlocks = 4096;  // blocks of 16 rows × 32 columns, each in a row block of its own
  for (const float rate : {0.02f, 0.1f, 0.5f}) {
    const Dropout d = at_rate(rate);
    double kept = 0;
    for (int block = 0; block < kBlocks; ++block) {
      const std::uint32_t threshold = keep_threshold(d, kSequence, kHead, block);
      for (int row = 0; row < kRows; ++row) {
        for (int column = 0; column < 32; ++column) kept += attention_byte(d, kSequence, kHead, 16 * block + row, column) < threshold;
      }
    }
    const double n = kBlocks * kRows * 32.0, p = 1 - static_cast<double>(rate);
    const double dither = 0.5 / 256 / std::sqrt(static_cast<double>(kBlocks));  // at most half a step from block to block
    EXPECT_NEAR(kept / n, p, 4 * (std::sqrt(p * (1 - p) / n) + dither)) << rate;
  }
}

TEST(Chance, masks_of_two_passes_heads_and_sites_differ) {
  const Dropout d = at_rate(0.5f), other_site{0.5f, kStep, 18};
  const std::uint64_t other_pass = sequence_key(Pass::view_a, 123456789);
  std::array<int, 3> equal{};
  for (int i = 0; i < 1024; ++i) {
    const std::uint32_t byte = attention_byte(d, kSequence, kHead, i % 32, i / 32);
    equal[0] += byte == attention_byte(d, other_pass, kHead, i % 32, i / 32);
    equal[1] += byte == attention_byte(d, kSequence, kHead + 1, i % 32, i / 32);
    equal[2] += byte == attention_byte(other_site, kSequence, kHead, i % 32, i / 32);
  }
  for (const int n : equal) EXPECT_LT(n, 20) << "about 4 of 1024 bytes agree by chance";
}

// ---- the kernels draw these masks: with q = 0 every weight is equal, and v = one-hot rows show which were kept.
struct Shown {
  std::vector<float> o;
  std::int64_t rows = 0, columns = 0;
};
constexpr int kWidth = 128, kKeys = 300;
// Three sequences read one, so that their blocks of 16 rows start anywhere among the rows computed together.
const std::vector<std::int32_t> kQueryOffsets{0, 37, 38, 141}, kKeyOffsets{0, kKeys}, kKvOf{0, 0, 0};
const std::vector<std::uint64_t> kKeysOfQueries{kSequence, 5, sequence_key(Pass::text, 99)}, kKeyOfKeys{1};

Shown attention_of_window(const Dropout& d, int first) {  // keys first … first + 127
  const std::int64_t rows = kQueryOffsets.back(), columns = 2 * kWidth;
  std::vector<float> q(static_cast<std::size_t>(rows * columns)), k(kKeys * columns), v(kKeys * columns);
  for (int i = 0; i < kWidth && first + i < kKeys; ++i) {
    for (int head = 0; head < 2; ++head) v[(first + i) * columns + head * kWidth + i] = 1;
  }
  Shown shown{std::vector<float>(q.size()), rows, columns};
  kernels::AttentionForward<float> a;
  a.q = {q.data(), rows, columns, columns}, a.k = {k.data(), kKeys, columns, columns}, a.v = {v.data(), kKeys, columns, columns};
  a.heads = 2, a.dropout = d;
  a.queries = {3, rows, 103, kQueryOffsets.data(), nullptr, kKeysOfQueries.data(), kKvOf.data()};
  a.keys = {1, kKeys, kKeys, kKeyOffsets.data(), nullptr, kKeyOfKeys.data(), nullptr};
  a.o = {shown.o.data(), rows, columns, columns};
  kernels::attention_forward<Device::cpu, float>({}, a);
  return shown;
}

int wrong_elements(const Dropout& d) {
  int wrong = 0;
  for (int first = 0; first < kKeys; first += kWidth) {
    const Shown shown = attention_of_window(d, first);
    for (int b = 0; b < 3; ++b) {
      for (int row = 0; row < kQueryOffsets[b + 1] - kQueryOffsets[b]; ++row) {
        for (int c = 0; c < 2 * kWidth; ++c) {
          const int head = c / kWidth, key = first + c % kWidth;
          const std::uint32_t threshold = keep_threshold(d, kKeysOfQueries[b], head, row / 16);
          const bool keep = key < kKeys && attention_byte(d, kKeysOfQueries[b], head, row, key) < threshold;
          wrong += keep != (shown.o[(kQueryOffsets[b] + row) * shown.columns + c] != 0);
        }
      }
    }
  }
  return wrong;
}

TEST(Chance, attention_drops_these_elements_on_every_instruction_set) {
  for (const std::int64_t target : {HWY_SSE4, HWY_AVX2, HWY_AVX3}) {
    if ((hwy::SupportedTargets() & target) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    for (const float rate : {0.001f, 0.02f, 0.5f, 0.999f})
      EXPECT_EQ(wrong_elements(at_rate(rate)), 0) << kernels::instruction_set() << ", rate " << rate;
    hwy::SetSupportedTargetsForTest(0);
  }
}

}  // namespace
}  // namespace lc::test
