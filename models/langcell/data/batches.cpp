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

// Rows in order of their ids, those of one id as they stand: a counting sort, for a batch has more rows than the vocabulary has ids.
static std::vector<std::int32_t> rows_by_id(std::span<const std::int32_t> ids) {
  std::vector<std::int32_t> next(ids.empty() ? 0 : static_cast<std::size_t>(*std::max_element(ids.begin(), ids.end())) + 1),
      rows(ids.size());
  for (const std::int32_t id : ids) ++next[static_cast<std::size_t>(id)];
  std::exclusive_scan(next.begin(), next.end(), next.begin(), 0);
  for (std::size_t row = 0; row < ids.size(); ++row)
    rows[static_cast<std::size_t>(next[static_cast<std::size_t>(ids[row])]++)] = static_cast<std::int32_t>(row);
  return rows;
}

Tokens upload(const Sequences& sequences, Purpose purpose, const Queue& queue) {
  Tokens t{Tensor::from(sequences.ids, queue), {}, Packing::make(sequences.packing, queue)};
  if (purpose == Purpose::training) {
    t.by_id = Tensor::from(rows_by_id(sequences.ids), queue);
  }
  return t;
}

std::vector<std::int32_t> cell_sequence(std::span<const std::int32_t> genes, std::int32_t cls, int max_tokens) {
  std::vector<std::int32_t> s = {cls};
  s.insert(s.end(), genes.begin(), genes.begin() + std::min<std::ptrdiff_t>(std::ssize(genes), max_tokens - 1));
  return s;
}

namespace {

constexpr std::int32_t kPlaces = 32;

struct Draws {  // philox<10> of neighbouring places of a sequence, one lane each
  std::uint32_t word[4][kPlaces];
};

Draws masking_draws(std::uint64_t key, std::int32_t first_place, PhiloxKey chance) {
  constexpr std::uint32_t kMaskingSite = 0x7fffffffu;  // no dropout site reaches this word
  Draws d;
  for (std::uint32_t i = 0; i < kPlaces; ++i) {
    d.word[0][i] = static_cast<std::uint32_t>(key), d.word[1][i] = static_cast<std::uint32_t>(key >> 32);
    d.word[2][i] = kMaskingSite, d.word[3][i] = static_cast<std::uint32_t>(first_place) + i;
  }
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (std::int32_t i = 0; i < kPlaces; ++i) {
      const Philox next = philox<1>({{d.word[0][i], d.word[1][i], d.word[2][i], d.word[3][i]}}, chance);
      d.word[0][i] = next.word[0], d.word[1][i] = next.word[1], d.word[2][i] = next.word[2], d.word[3][i] = next.word[3];
    }
    chance.word[0] += 0x9E3779B9u, chance.word[1] += 0xBB67AE85u;
  }
  return d;
}

}  // namespace

MaskedSequences mask_genes(const Sequences& clean, const MaskRule& rule) {
  constexpr std::int32_t kMask = 1, kFirstGene = 2;
  const double unit = 1.0 / 4294967296.0;
  MaskedSequences m{clean, {}, {}};
  std::int32_t first = 0;
  for (std::size_t b = 0; b < clean.count(); first += clean.packing.lengths[b++]) {
    Draws draws;
    for (std::int32_t place = 0; place < clean.packing.lengths[b]; ++place) {
      const std::int32_t lane = place % kPlaces, row = first + place, gene = clean.ids[row];
      if (lane == 0) draws = masking_draws(clean.packing.keys[b], place, rule.chance);
      if (gene < kFirstGene || gene >= rule.vocabulary - 1 || draws.word[0][lane] * unit >= rule.rate) continue;
      m.rows.push_back(row), m.labels.push_back(gene);
      const double what = draws.word[1][lane] * unit;
      if (what < 0.8)
        m.sequences.ids[row] = kMask;
      else if (what < 0.9)
        m.sequences.ids[row] = kFirstGene + static_cast<std::int32_t>(draws.word[2][lane] * unit * (rule.vocabulary - 1 - kFirstGene));
    }
  }
  return m;
}

}  // namespace lc
