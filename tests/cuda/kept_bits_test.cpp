// The mask of a strip as bits is the mask element by element, at every threshold.
#include "kernels/cuda/kept_bits.cuh"

#include <gtest/gtest.h>

namespace lc::cuda {
namespace {

TEST(KeptBits, are_the_mask_element_by_element_at_every_threshold) {
  KeepStrip strip;
  for (std::uint32_t threshold = 0; threshold <= 256; ++threshold) {
    strip.threshold = threshold;
    for (std::uint32_t first = 0; first < 256; first += 32) {  // every byte value once
      for (std::uint32_t i = 0; i < 32; ++i) {
        std::uint32_t& word = strip.bits[i / 16].word[i / 4 % 4];
        word = i % 4 == 0 ? 0 : word;
        word |= (first + (i * 7 + threshold) % 32) << (8 * (i % 4));
      }
      const std::uint32_t kept = kept_bits(strip);
      for (int j = 0; j < 8; ++j) {
        for (int e = 0; e < 4; ++e) {
          ASSERT_EQ(keeps(kept, j, e), strip.keeps(j, e)) << "threshold " << threshold << ", fragment " << j << ", " << e;
        }
        std::uint32_t pairs[2] = {0x11112222u, 0x33334444u};
        drop_pairs(pairs[0], pairs[1], BytesBelow(threshold)(strip.bits[j / 4].word[j % 4]));
        ASSERT_EQ(pairs[0], (strip.keeps(j, 0) ? 0x2222u : 0u) | (strip.keeps(j, 1) ? 0x11110000u : 0u));
        ASSERT_EQ(pairs[1], (strip.keeps(j, 2) ? 0x4444u : 0u) | (strip.keeps(j, 3) ? 0x33330000u : 0u));
      }
    }
  }
}

}  // namespace
}  // namespace lc::cuda
