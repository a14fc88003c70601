// A stream of chance for simulation and splits: the same numbers for the same seed and stream, on every machine and with any number of
// threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "kernels/numeric.h"

namespace lc {

class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t stream)
      : counter_{{0, 0, static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)}},
        key_{{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}} {}

  std::uint32_t word() {
    if (used_ == 4) {
      block_ = philox<10>(counter_, key_);
      if (++counter_.word[0] == 0) ++counter_.word[1];
      used_ = 0;
    }
    return block_.word[used_++];
  }
  double uniform() {  // above 0, below 1
    const std::uint64_t bits = (std::uint64_t{word()} << 21) ^ (word() >> 11);
    return (static_cast<double>(bits & ((std::uint64_t{1} << 52) - 1)) + 0.5) * 0x1.0p-52;
  }
  std::uint64_t below(std::uint64_t limit) { return static_cast<std::uint64_t>(uniform() * static_cast<double>(limit)); }
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()); }

  // Marsaglia and Tsang (2000); mean shape · scale.
  double gamma(double shape, double scale) {
    if (shape < 1) {
      const double whole = gamma(shape + 1, scale);
      return whole * std::pow(uniform(), 1 / shape);
    }
    const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    while (true) {
      const double x = normal(), v = std::pow(1 + c * x, 3);
      if (v > 0 && std::log(uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v * scale;
    }
  }

  template <class T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  Philox counter_, block_{};
  PhiloxKey key_;
  int used_ = 4;
};

}  // namespace lc
