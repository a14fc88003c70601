// Tokenised cells by the million, for tests of scale. A few thousand cells are simulated as counts and ranked; each further cell is one of
// them with a tenth of its genes unseen and the others moved by a few ranks. Each cell has its own stream of chance.
#pragma once
#include <cstdint>
#include <vector>

#include "models/langcell/data/cell_tokens.h"
#include "tools/commands/simulate_counts.h"

namespace lc {

class SimulatedTokens {
 public:
  static constexpr std::uint64_t kPatterns = 4096;

  // `patterns`: the cells to vary, with their types and donors; vocabulary: its genes, by default with medians over these cells.
  SimulatedTokens(const SimulatedCounts& patterns, const GeneVocabulary& vocabulary, std::uint64_t seed);

  // Distinct genes of the cell, best first. Replaces what `out` holds; may be called from several threads.
  void tokens(std::uint64_t cell, std::vector<std::int32_t>& out) const;
  std::int32_t type(std::uint64_t cell) const { return patterns_.type_of_cell()[pattern_of(cell)]; }
  std::int32_t donor(std::uint64_t cell) const { return patterns_.donor_of_cell()[pattern_of(cell)]; }

 private:
  std::uint64_t pattern_of(std::uint64_t cell) const;
  const SimulatedCounts& patterns_;
  CellTokens tokens_;  // of the patterns
  std::uint64_t seed_;
};

// The genes that the cells have, with the medians of their non-zero values.
GeneVocabulary vocabulary_of(const SimulatedCounts& cells);

}  // namespace lc
