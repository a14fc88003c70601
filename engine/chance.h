// Chance for those above the engine, from the one source that the kernels draw from too (Philox, and the keys of a step, a sequence, a
// name).
#pragma once
#include "kernels/numeric.h"

namespace lc {

// What chance says of the pair (a, b) under this key.
constexpr Philox draw(PhiloxKey key, std::uint64_t a, std::uint64_t b) {
  return philox<10>({{static_cast<std::uint32_t>(a), static_cast<std::uint32_t>(a >> 32), static_cast<std::uint32_t>(b),
                      static_cast<std::uint32_t>(b >> 32)}},
                    key);
}

}  // namespace lc
