// One optimiser step of LangCell over all ranks. step.cpp shows it from top to bottom.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "engine/comm.h"
#include "models/langcell/langcell.h"
#include "models/langcell/objectives.h"
#include "train/dataset.h"
#include "train/options.h"
#include "train/order.h"
#include "train/reducer.h"

namespace lc {

struct StepRule {  // what a stage asks of every step
  std::uint64_t seed = 0;
  std::uint32_t stage = 1;
  float mgm = 1, cell_cell = 1, cell_text = 0, matching = 0;  // weights; 0 switches off
  float temperature = 0.05f, mask_rate = 0.15f, clip = 1, weight_decay = 1e-3f;
  enum class MaskedPass : std::uint8_t {
    own,
    view_b
  } masked_pass = MaskedPass::own;  // view_b: MGM's input is the second view (share_pass)
  SamePairs same_text = SamePairs::positive;
  RelatedTypes related = RelatedTypes::negative;  // ignore: cells of related types leave each other's denominators and draws
  double field_dropout = 0;                       // of the fields of a text from a template
  PassOptions::Activations activations = PassOptions::Activations::keep;
  int max_cell_tokens = 2048;
  std::int64_t least_slice = Reducer::kLeastSlice;  // of the gradients that are summed at once
  bool cells_need_text() const { return cell_text > 0 || matching > 0; }
};

struct StepResult {
  double loss = 0;
  std::optional<double> mgm, cell_cell, cell_text, matching;  // means, absent when inactive; entropy of the targets subtracted
  double gradient_norm = 0, data_seconds = 0;
  std::int64_t skipped_negatives = 0, tokens = 0;
  bool one_group_only = false;
};

// A step whose work has been asked for; its numbers are still where they were computed.
struct PendingStep {
  std::uint32_t number = 0;
  std::vector<Tensor> mgm, matching;  // (1) sums, one per micro-batch of this rank
  Tensor cell_cell, cell_text, gradient_norm;
  double masked_tokens = 0, match_pairs = 0, cell_cell_pairs = 0, cell_text_pairs = 0, cell_text_entropy = 0;
  std::vector<std::uint64_t> samples;
  StepResult known;                  // what needed no computing
  std::optional<StepResult> result;  // when somebody has looked already
};

enum class Update : std::uint8_t { optimiser, gradients_only, losses_only };

class Step {
 public:
  Step(LangCell& model, const Dataset& data, Communicator& ranks, const StepRule& rule)
      : model_(model), data_(data), ranks_(ranks), rule_(rule) {}
  // `number` counts from 0 within the stage; micro_batches: this rank's samples. NumericalError naming step, ranks, losses and samples when
  // a loss or the gradient is not finite: then nothing was updated. losses_only: no dropout, no tape.
  StepResult run(std::uint32_t number, const std::vector<Samples>& micro_batches, float lr, Update update = Update::optimiser);
  // The same in two halves: begin() does not wait for a device, but for the z that negatives are drawn from; finish() reads the numbers.
  // On the CPU begin() has looked at them already, before it updated.
  PendingStep begin(std::uint32_t number, const std::vector<Samples>& micro_batches, float lr, Update update = Update::optimiser);
  StepResult finish(const PendingStep& step);

 private:
  struct MicroBatch;
  struct GlobalBatch;
  struct Encoded;
  GlobalBatch assemble(const std::vector<Samples>& micro_batches);
  std::vector<std::int64_t> choose_texts(const std::vector<std::int64_t>& cells, GlobalBatch& batch) const;
  void upload_views(const Samples& samples, MicroBatch& m, GlobalBatch& batch) const;
  Encoded encode(const MicroBatch& m, Tape* tape) const;
  Contrast contrast_of(const GlobalBatch& batch, const std::vector<Encoded>& encoded) const;
  void objectives(const GlobalBatch& batch, const MicroBatch& m, const Contrast& c, Encoded& e, PendingStep& step) const;
  PassOptions options(bool training) const;
  const Queue& queue() const { return model_.parameters().queue(); }
  void require_finite(const PendingStep& step, const StepResult& result, std::span<const double> rank_failed) const;

  LangCell& model_;
  const Dataset& data_;
  Communicator& ranks_;
  StepRule rule_;
  PhiloxKey chance_{};
  Update update_ = Update::optimiser;
};

}  // namespace lc
