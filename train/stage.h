// What a stage of a configuration asks for: of every step, and of the parameters.
#pragma once
#include "engine/parameters.h"
#include "train/options.h"
#include "train/step.h"

namespace lc {

StepRule step_rule(const Options& options, int stage, int max_cell_tokens);

struct LoadedTowers {  // those that bring weights with them
  bool cell = false, text = false;
};

// Freezes the user's globs and whatever the stage's objectives do not reach: those weights must not even decay. UsageError: a glob that
// matches nothing, or a used tower that was neither loaded nor trained and would stay so.
void freeze_for_stage(const Options& options, int stage, LoadedTowers loaded, Parameters& parameters);

}  // namespace lc
