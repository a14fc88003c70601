#include "tools/commands/simulate_tokens.h"

#include <algorithm>
#include <string>

#include "tools/commands/random.h"

namespace lc {

namespace {

constexpr std::uint64_t kTokenStream = std::uint64_t{1} << 47;  // plus the cell's number
constexpr std::uint32_t kUnseen = 26;                           // of 256
constexpr std::size_t kFarthest = 7;                            // ranks; a power of two less one

std::vector<std::string> ids_of(const SimulatedCounts& cells) {
  std::vector<std::string> ids;
  for (const SimulatedGene& gene : cells.genes()) ids.push_back(gene.ensembl_id);
  return ids;
}

}  // namespace

GeneVocabulary vocabulary_of(const SimulatedCounts& cells) {
  std::vector<std::string> names;
  for (const SimulatedGene& gene : cells.genes()) names.push_back(gene.name);
  MedianBuilder medians;
  medians.begin_matrix(ids_of(cells), names);
  medians.add(cells.cells(0, cells.type_of_cell().size()).view());
  return medians.finish();
}

SimulatedTokens::SimulatedTokens(const SimulatedCounts& patterns, const GeneVocabulary& vocabulary, std::uint64_t seed)
    : patterns_(patterns),
      tokens_(
          CellTokenizer(vocabulary, ids_of(patterns), vocabulary.size()).encode(patterns.cells(0, patterns.type_of_cell().size()).view())),
      seed_(seed) {}

std::uint64_t SimulatedTokens::pattern_of(std::uint64_t cell) const {
  return Random(seed_, kTokenStream + cell).word() % patterns_.type_of_cell().size();
}

void SimulatedTokens::tokens(std::uint64_t cell, std::vector<std::int32_t>& out) const {
  Random random(seed_, kTokenStream + cell);
  const auto pattern = tokens_.cell(static_cast<std::int64_t>(random.word() % patterns_.type_of_cell().size()));
  out.resize(pattern.size());
  std::size_t kept = 0;
  std::uint32_t word = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i, word >>= 8) {
    if (i % 4 == 0) word = random.word();
    if ((word & 255) < kUnseen) continue;
    out[kept] = pattern[i];
    std::swap(out[kept], out[kept - std::min(kept, word & kFarthest)]);
    ++kept;
  }
  out.resize(kept);
}

}  // namespace lc
