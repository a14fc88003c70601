// Zero-shot labels: how well each text fits each cell. Score of cell c for texts t_1 … t_N (the published notebook's, kept exactly):
// A = softmax_k(cos(z_c, z_k) / 0.05), p_k = match probability, B = softmax_k(p_k), score = α·A + (1 − α)·B. Comparable only within one
// list.
#pragma once
#include <span>
#include <vector>

#include "models/langcell/langcell.h"

namespace lc {

enum class ScoreKind : std::uint8_t { published, logit };  // B over probabilities, or over match logits (log-odds)

struct AnnotateOptions {
  float alpha = 0.1f, temperature = 0.05f;
  ScoreKind score = ScoreKind::published;
  int top_k = 0;                      // > 0: the matching pass runs for the K most similar labels only; the others get B = 0
  std::int64_t tokens_per_batch = 0;  // of cells, and of texts in matching mode; 0: what suits the device
};

struct CellScores {  // row by row; n cells, N labels, P projection
  std::int64_t cells = 0, labels = 0, projection = 0;
  std::vector<float> z;                         // (n, P) unit length
  std::vector<float> cls;                       // (n, C) raw hidden state of position 0; embed_cells only
  std::vector<float> similarity, match, score;  // (n, N) cosine, match probability (NaN where not computed), score
  std::vector<float> odds;                      // (n, N) match logits as log-odds (NaN where not computed)
};

using TokenList = std::vector<std::int32_t>;

// A label may have several texts: its similarity and match are their means.
class Annotator {
 public:
  Annotator(const LangCell& model, std::vector<std::vector<TokenList>> label_texts, const AnnotateOptions& options);
  CellScores operator()(std::span<const TokenList> cells) const;  // cells with <cls>; results in the order given, whatever the batches

 private:
  void match_cells(const Tensor& hidden, const Tokens& tokens, std::span<const std::size_t> which, CellScores& out) const;
  const LangCell& model_;
  AnnotateOptions options_;
  std::vector<TokenList> texts_;
  std::vector<std::int32_t> label_of_;  // of each text
  std::int64_t labels_ = 0;
  std::vector<float> z_;  // (texts, P)
};

// z and position-0 states alone; needs no text tower.
CellScores embed_cells(const LangCell& model, std::span<const TokenList> cells, std::int64_t tokens_per_batch = 0);

// score of one cell from its similarities and what B is made of (match probabilities, or log-odds for ScoreKind::logit); NaN counts as B =
// 0.
std::vector<double> combine_scores(std::span<const float> similarity, std::span<const float> match, const AnnotateOptions& options);

}  // namespace lc
