// rank_encoding: the genes of a cell in the order of count / n_counts · 10⁴ / median, largest first. The order is decided by the last bit
// of this arithmetic, so it follows the published code's types exactly: two operations in float, one in double.
#include <algorithm>
#include <array>
#include <bit>
#include <utility>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/kernels.h"

namespace lc::kernels {
namespace {

constexpr std::int64_t kCells = 8;  // per chunk

struct Ranked {
  double value = 0;
  float count = 0;
  std::int32_t token = 0;
};
bool before(const Ranked& a, const Ranked& b) { return a.value != b.value ? a.value > b.value : a.token < b.token; }

// One cell's genes, each token once: counts of several columns of one token are added in the order of the row.
class Gatherer {
 public:
  const std::vector<Ranked>& operator()(const RankEncoding& e, std::int64_t cell) {
    for (const Ranked& r : genes_) place_[static_cast<std::size_t>(r.token)] = -1;
    genes_.clear();
    for (std::int64_t i = e.indptr[cell]; i < e.indptr[cell + 1]; ++i) {
      const std::int32_t token = e.token_of_column[e.columns[i]];
      if (token >= 0) add(token, e.counts[i]);
    }
    return genes_;
  }

 private:
  void add(std::int32_t token, float count) {
    const auto t = static_cast<std::size_t>(token);
    if (t >= place_.size()) place_.resize(t + 1, -1);
    if (place_[t] < 0) {
      place_[t] = static_cast<std::int32_t>(genes_.size());
      genes_.push_back({0, count, token});
    } else {
      genes_[static_cast<std::size_t>(place_[t])].count += count;
    }
  }
  std::vector<Ranked> genes_;
  std::vector<std::int32_t> place_;  // of a token in genes_, −1: not there
};

// Values are positive, so their bits are in their order: three passes of a radix sort over the upper 32 bits, then what they leave equal.
class Sorter {
 public:
  const std::vector<Ranked>& operator()(const std::vector<Ranked>& genes) {
    keys_.resize(genes.size()), other_.resize(genes.size()), sorted_.resize(genes.size());
    for (std::size_t i = 0; i < genes.size(); ++i) {
      const auto upper = static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(genes[i].value) >> 32);
      keys_[i] = std::uint64_t{~upper} << 32 | i;  // largest first
    }
    for (const int shift : {32, 43, 54}) pass(shift);
    for (std::size_t i = 0; i < genes.size(); ++i) sorted_[i] = genes[keys_[i] & 0xffffffffu];
    for (std::size_t begin = 0; begin < genes.size();) {
      std::size_t end = begin + 1;
      while (end < genes.size() && keys_[end] >> 32 == keys_[begin] >> 32) ++end;
      if (end - begin > 1)
        std::sort(sorted_.begin() + static_cast<std::ptrdiff_t>(begin), sorted_.begin() + static_cast<std::ptrdiff_t>(end), before);
      begin = end;
    }
    return sorted_;
  }

 private:
  void pass(int shift) {
    constexpr std::size_t kBins = 2048;
    std::array<std::uint32_t, kBins> place{};
    for (const std::uint64_t key : keys_) ++place[key >> shift & (kBins - 1)];
    std::uint32_t sum = 0;
    for (std::uint32_t& p : place) sum += std::exchange(p, sum);
    for (const std::uint64_t key : keys_) other_[place[key >> shift & (kBins - 1)]++] = key;
    std::swap(keys_, other_);
  }
  std::vector<std::uint64_t> keys_, other_;  // upper half: the value; lower half: its gene
  std::vector<Ranked> sorted_;
};

void encode(const RankEncoding& e, std::int64_t cell, Gatherer& gather, std::vector<Ranked>& ranked, Sorter& sort) {
  ranked.clear();
  for (Ranked r : gather(e, cell)) {
    const float share = r.count / e.n_counts[cell];
    const float scaled = share * 10000.0f;
    r.value = static_cast<double>(scaled) / e.median_of_token[r.token];
    if (r.count != 0) ranked.push_back(r);
  }
  const std::vector<Ranked>& sorted = sort(ranked);
  const std::int64_t kept = std::min(e.max_tokens, static_cast<std::int64_t>(sorted.size()));
  for (std::int64_t k = 0; k < kept; ++k) e.tokens[cell * e.max_tokens + k] = sorted[static_cast<std::size_t>(k)].token;
  e.lengths[cell] = static_cast<std::int32_t>(kept);
}

}  // namespace

template <>
void rank_encoding<Device::cpu>(Queue, const RankEncoding& e) {
  parallel_for(e.cells, kCells, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    static thread_local Gatherer gather;
    static thread_local std::vector<Ranked> ranked;
    static thread_local Sorter sort;
    for (std::int64_t cell = begin; cell < end; ++cell) encode(e, cell, gather, ranked, sort);
  });
}

}  // namespace lc::kernels
