// The four objectives of LangCell. They take given masks, positives and pairs, so that golden numbers can judge them; losses are sums,
// the caller divides once by the global count.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "models/langcell/langcell.h"

namespace lc {

// Masked gene modelling (Theodoris et al. 2023): cross-entropy over the vocabulary at the chosen rows of `hidden`; rows, labels (M) i32.
Tensor masked_gene_loss(const LangCell& model, const Tensor& hidden, const Tensor& rows, const Tensor& labels);

// Cell–text matching: cross-entropy of the head on texts read against the cells' states; labels (pairs) i32, 1: they belong together.
Tensor matching_loss(const LangCell& model, const CrossStates& cells, const Tokens& texts, const Tensor& labels,
                     const PassOptions& options);

// ---- The contrastive part: once per step, over the global batch.

struct ContrastBatch {                                           // N samples, D distinct texts
  Tensor view_a, view_b;                                         // z (N, P) float; view_b absent: no cell–cell loss
  Tensor text;                                                   // z (D, P) float; absent: no cell–text loss and no matching
  std::vector<std::uint64_t> samples;                            // (N) global sample numbers
  std::vector<std::int32_t> text_of;                             // (N) which distinct text, −1: none
  std::vector<std::int64_t> group_of;                            // (N) who counts as equal, −1: none
  std::vector<std::uint64_t> text_owner;                         // (D) smallest sample number among the owners of each distinct text
  std::function<bool(std::int64_t, std::int64_t)> related = {};  // groups that are no negatives of each other; absent: none
};

struct ContrastOptions {
  float cell_cell = 1, cell_text = 1, matching = 1;  // weights; 0 switches off
  float scale = 20;                                  // 1/τ
  bool gradients = true;                             // false: losses and pairs alone
  SamePairs same_text = SamePairs::positive;
  PhiloxKey chance{};  // of this step, for the negatives
  // Of several ranks each draws for its own anchors, `first` to first + count of them (count −1: all), and `gather` brings what all drew,
  // in the order of the ranks.
  std::int64_t first = 0, count = -1;
  std::function<std::vector<std::int64_t>(const std::vector<std::int64_t>&)> gather = {};
};

struct MatchPair {
  std::int32_t cell = 0, text = 0, label = 0;  // indices into the samples and the distinct texts
  std::uint64_t key = 0;                       // sequence key of the text's pass
};

struct Contrast {
  Tensor cell_cell, cell_text;                      // (1) sums over the pairs; absent: off, or nothing to compare
  double cell_cell_pairs = 0, cell_text_pairs = 0;  // what they are divided by
  double cell_text_entropy = 0;                     // of the targets, per pair, not subtracted above
  Tensor d_view_a, d_view_b, d_text;                // of the weighted mean losses; absent where nothing reaches
  std::vector<MatchPair> pairs;                     // positives and drawn negatives, in the order of the cells
  std::int64_t skipped_negatives = 0;               // anchors without an admissible negative
  bool one_group_only = false;                      // cell–text had nothing to tell apart: weight 0
};
Contrast contrast(const ContrastBatch& batch, const ContrastOptions& options);

}  // namespace lc
