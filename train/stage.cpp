#include "train/stage.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/errors.h"

namespace lc {

StepRule step_rule(const Options& options, int stage, int max_cell_tokens) {
  const StageOptions& s = options.stage(stage);
  StepRule r;
  r.seed = static_cast<std::uint64_t>(options.train.seed), r.stage = static_cast<std::uint32_t>(stage);
  r.mgm = static_cast<float>(s.objectives.mgm), r.cell_cell = static_cast<float>(s.objectives.cell_cell),
  r.cell_text = static_cast<float>(s.objectives.cell_text), r.matching = static_cast<float>(s.objectives.matching);
  r.temperature = static_cast<float>(s.temperature), r.mask_rate = static_cast<float>(s.mask_rate), r.clip = static_cast<float>(s.clip),
  r.weight_decay = static_cast<float>(s.weight_decay);
  r.masked_pass = s.share_pass ? StepRule::MaskedPass::view_b : StepRule::MaskedPass::own;
  r.same_text = s.same_text, r.related = s.related, r.field_dropout = options.data.field_dropout;
  r.activations = options.train.recompute ? PassOptions::Activations::recompute : PassOptions::Activations::keep;
  r.max_cell_tokens = max_cell_tokens;
  return r;
}

void freeze_for_stage(const Options& options, int stage, LoadedTowers loaded, Parameters& parameters) {
  const StageOptions& s = options.stage(stage);
  if (const auto idle = parameters.freeze(s.freeze); !idle.empty())
    throw UsageError(fmt::format("stage{}.freeze: '{}' matches no tensor; langcell info MODEL shows what there is", stage, idle.front()));
  const auto whole_tower_frozen = [&](const std::string& prefix) {
    const auto& all = parameters.named();
    return std::all_of(all.begin(), all.end(), [&](const NamedParameter& p) { return p.name.rfind(prefix, 0) != 0 || p.frozen; });
  };
  const bool text = s.objectives.cell_text > 0 || s.objectives.matching > 0;
  const bool cell_trained = loaded.cell || (stage == 2 && options.stage1.runs());
  if (!cell_trained && whole_tower_frozen("cell_bert."))
    throw UsageError(fmt::format("stage{}.freeze: freezes the whole cell tower, which was neither loaded nor trained", stage));
  if (text && !loaded.text && whole_tower_frozen("text_bert."))
    throw UsageError(fmt::format("stage{}.freeze: freezes the whole text tower, which was neither loaded nor trained", stage));

  std::vector<std::string> globs = s.freeze;
  if (!text) globs.push_back("text_bert.*");
  if (s.objectives.cell_text <= 0) globs.push_back("text_proj.*");
  if (s.objectives.matching <= 0) globs.insert(globs.end(), {"ctm_head.*", "text_bert.*.crossattention.*"});
  if (s.objectives.mgm <= 0) globs.push_back("mgm_head.*");
  if (s.objectives.cell_text <= 0 && s.objectives.cell_cell <= 0) globs.push_back("cell_proj.*");
  parameters.freeze(globs);
}

}  // namespace lc
