#include "train/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/errors.h"

namespace lc {

std::int64_t warmup_steps(const StageOptions& stage, std::int64_t steps, const std::string& name) {
  const double wanted = stage.warmup < 1 ? stage.warmup * static_cast<double>(steps) : stage.warmup;
  if (wanted > 0.5 * static_cast<double>(steps)) {
    throw UsageError(fmt::format("{}.warmup: wanted at most half of the stage's {} steps, got {}", name, steps,
                                 stage.warmup < 1 ? fmt::format("a share of {}", stage.warmup) : fmt::format("{} steps", stage.warmup)));
  }
  return static_cast<std::int64_t>(std::llround(wanted));
}

double Schedule::lr(std::int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  const double done =
      std::clamp(static_cast<double>(step - warmup) / static_cast<double>(std::max<std::int64_t>(steps - warmup, 1)), 0.0, 1.0);
  switch (decay) {
    case Decay::linear:
      return peak * (1 - done);
    case Decay::cosine:
      return peak * 0.5 * (1 + std::cos(std::numbers::pi * done));
    case Decay::constant:
      break;
  }
  return peak;
}

}  // namespace lc
