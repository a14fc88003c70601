// The options of every command that reads counts: which matrix, which genes.
#pragma once
#include <filesystem>
#include <span>
#include <string>

#include "models/langcell/data/gene_vocabulary.h"
#include "tools/anndata/counts.h"
#include "tools/commands/command_line.h"

namespace lc {

struct CountsFlags {
  std::string layer, genome;
  std::filesystem::path gene_map, orthologs;
  std::int64_t min_counts = -1;
  bool fractional_counts = false, gene_names = false, allow_low_coverage = false;

  LowCoverage low_coverage() const { return allow_low_coverage ? LowCoverage::accept : LowCoverage::refuse; }
};

void add_counts_flags(Command command, CountsFlags& flags);
CountsOptions counts_options(const CountsFlags& flags);  // gene names only where a vocabulary resolves them
CountsOptions counts_options(const CountsFlags& flags, const GeneVocabulary& vocabulary);

}  // namespace lc
