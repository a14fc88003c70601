// The learning rate of a step: linear warm-up, then linear or cosine decay towards 0, or none (Loshchilov & Hutter 2017 for the cosine).
#pragma once
#include <cstdint>
#include <string>

#include "train/options.h"

namespace lc {

// Steps of warm-up of a stage of `steps` steps; UsageError naming NAME.warmup when they are more than half of it.
std::int64_t warmup_steps(const StageOptions& stage, std::int64_t steps, const std::string& name);

struct Schedule {
  double peak = 1e-4;
  std::int64_t steps = 1000, warmup = 0;
  Decay decay = Decay::linear;
  // step from 0. Warm-up: peak · (step + 1)/(warmup + 1); the step after it runs at the peak; the last at peak/(steps − warmup) when
  // linear.
  double lr(std::int64_t step) const;
};

}  // namespace lc
