#include "models/langcell/data/batches.h"

#include <algorithm>
#include <numeric>

namespace lc {

void Sequences::add(std::span<const std::int32_t> tokens, std::uint64_t key) {
  ids.insert(ids.end(), tokens.begin(), tokens.end());
  packing.lengths.push_back(static_cast<std::int32_t>(tokens.size()));
  packing.keys.push_back(key);
}

void Sequences::add(std::span<const std::int32_t> tokens, std::uint64_t key, std::int32_t kv) {
  add(tokens, key);
  packing.kv_of.push_back(kv);
}

Tokens upload(const Sequences& sequences, Purpose purpose, const Queue& queue) {
  Tokens t{Tensor::from(sequences.ids, queue), {}, Packing::make(sequences.packing, queue)};
  if (purpose == Purpose::training) {
    std::vector<std::int32_t> rows(sequences.ids.size());
    std::iota(rows.begin(), rows.end(), 0);
    std::stable_sort(rows.begin(), rows.end(), [&](std::int32_t a, std::int32_t b) { return sequences.ids[a] < sequences.ids[b]; });
    t.by_id = Tensor::from(rows, queue);
  }
  return t;
}

std::vector<std::int32_t> cell_sequence(std::span<const std::int32_t> genes, std::int32_t cls, int max_tokens) {
  std::vector<std::int32_t> s = {cls};
  s.insert(s.end(), genes.begin(), genes.begin() + std::min<std::ptrdiff_t>(std::ssize(genes), max_tokens - 1));
  return s;
}

MaskedSequences mask_genes(const Sequences& clean, const MaskRule& rule) {
  constexpr std::int32_t kMask = 1, kFirstGene = 2;
  constexpr std::uint32_t kMaskingSite = 0x7fffffffu;  // no dropout site reaches this word
  const double unit = 1.0 / 4294967296.0;
  MaskedSequences m{clean, {}, {}};
  std::int32_t row = 0;
  for (std::size_t b = 0; b < clean.count(); ++b) {
    const std::uint64_t key = clean.packing.keys[b];
    for (std::int32_t place = 0; place < clean.packing.lengths[b]; ++place, ++row) {
      const std::int32_t gene = clean.ids[row];
      if (gene < kFirstGene || gene >= rule.vocabulary - 1) continue;
      const Philox r = philox<10>(
          {{static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32), kMaskingSite, static_cast<std::uint32_t>(place)}},
          rule.chance);
      if (r.word[0] * unit >= rule.rate) continue;
      m.rows.push_back(row), m.labels.push_back(gene);
      const double what = r.word[1] * unit;
      if (what < 0.8)
        m.sequences.ids[row] = kMask;
      else if (what < 0.9)
        m.sequences.ids[row] = kFirstGene + static_cast<std::int32_t>(r.word[2] * unit * (rule.vocabulary - 1 - kFirstGene));
    }
  }
  return m;
}

}  // namespace lc
