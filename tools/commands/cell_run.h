// Labels and embeddings of a file's cells, for the commands annotate and embed: counts to tokens to scores, block by block.
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "models/langcell/annotate.h"
#include "models/langcell/data/texts.h"
#include "models/langcell/model_folder.h"
#include "tools/anndata/counts.h"

namespace lc {

struct CellRun {                // what one pass over a file gives; n cells in the file's order
  CellScores scores;            // without texts: z and cls alone
  std::vector<char> has_genes;  // (n) a vocabulary gene was there
  Coverage figures;
  std::string counts_source;
  std::uint64_t cut_cells = 0;  // cells with more genes than the model reads
};

struct CellRunOptions {
  LowCoverage low_coverage = LowCoverage::refuse;
  const Texts* texts = nullptr;  // null: embed only
  AnnotateOptions annotate;
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

CellRun run_cells(const LoadedModel& model, const CountMatrix& counts, const CellRunOptions& options);

// What annotate writes about each cell; the names are those of the obs columns without prefix.
struct Labels {
  std::vector<std::int32_t> label, final, second;  // index into the texts, −1: none
  std::vector<float> score, margin, similarity, match, entropy;
  std::vector<std::string> reason;  // ok no_genes low_match
};
Labels labels_of(const CellRun& run);

}  // namespace lc
