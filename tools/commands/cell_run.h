// Labels and embeddings of a file's cells, for the commands annotate and embed: counts to tokens to scores, block by block, into a spool,
// so that memory does not grow with the cells and an interrupted run goes on.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/spool.h"
#include "models/langcell/annotate.h"
#include "models/langcell/data/cell_tokens.h"
#include "models/langcell/data/texts.h"
#include "models/langcell/model_folder.h"
#include "tools/anndata/counts.h"

namespace lc {

enum class Reason : std::int32_t { ok, no_genes, low_match };
const char* name_of(Reason reason);

struct CellLabel {  // what annotate writes about a cell; the names are those of the obs columns without prefix
  std::int32_t label = -1, final = -1, second = -1;  // index into the texts, −1: none
  float score, margin, similarity, match, entropy;   // NaN: none
  Reason reason = Reason::ok;
};

enum class Wanted : std::uint8_t { labels, embeddings, embeddings_and_cls };

struct CellRunOptions {
  Wanted wanted = Wanted::labels;
  std::filesystem::path out;
  std::string about;  // all options that the results depend on, in any form
  Existing existing = Existing::refuse;
  bool only_finish = false;  // the output is there: work that is not done would not be of it
  LowCoverage low_coverage = LowCoverage::refuse;
  const Texts* texts = nullptr;  // with Wanted::labels
  AnnotateOptions annotate;
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

class CellRun {
 public:
  // Reads what the file is, opens the spool. DataError for a file whose genes the model does not know enough of.
  CellRun(const LoadedModel& model, const CountMatrix& counts, const CellRunOptions& options);
  void run();       // all cells that are not there yet. Stopped (75) after SIGINT or SIGTERM: the same command goes on
  void estimate();  // --dry-run: times some cells, says what all would take, writes nothing
  void finish() { spool_->remove(); }

  std::uint64_t cells() const { return counts_.n_cells(); }
  const Coverage& figures() const { return figures_; }
  std::uint64_t projection() const { return projection_; }
  std::vector<CellLabel> labels() const;
  using Rows = std::function<void(std::uint64_t begin, std::uint64_t end, float* rows)>;
  Rows z() const;       // (n, projection)
  Rows scores() const;  // (n, labels), NaN for cells without genes
  Rows cls() const;     // (n, width)

 private:
  CellScores scores_of(std::uint64_t begin, std::uint64_t end, std::vector<char>& has_genes);
  void keep(const CellScores& part, const std::vector<char>& has_genes);
  Rows rows_of(std::size_t part) const;
  std::string identity() const;

  const LoadedModel& model_;
  const CountMatrix& counts_;
  CellRunOptions options_;
  Coverage figures_;
  std::uint64_t projection_ = 0, labels_ = 0;
  std::optional<Annotator> annotator_;
  std::optional<CellTokenizer> tokenizer_;
  std::unique_ptr<Spool> spool_;
  std::uint64_t cut_cells_ = 0;
};

}  // namespace lc
