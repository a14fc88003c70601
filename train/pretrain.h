// The pre-training driver: both stages from a configuration and corpora to a model folder, with checkpoints, validation and resume.
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "engine/comm.h"
#include "train/log.h"
#include "train/options.h"

namespace lc {

enum class Resume : std::uint8_t { no, yes };

struct PretrainSetup {
  Options options;
  std::filesystem::path run;  // the run folder
  Resume resume = Resume::no;
  std::optional<Queue> queue = {};  // where this rank computes; absent: where train.device says
  std::function<void(const std::string&)> say = [](const std::string&) {};
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  Progress::Show progress = Progress::Show::automatic;
};

struct PretrainOutcome {
  std::int64_t steps = 0;  // done now
  double seconds = 0;
  std::filesystem::path model;  // RUN/model
};

// UsageError: a non-empty run folder without resume, a resumed run with another configuration, freezing that leaves a used tower untrained.
// Stopped (75) after SIGINT or SIGTERM, with a checkpoint written. A finished run resumed: nothing to do.
PretrainOutcome pretrain(const PretrainSetup& setup, Communicator& ranks);

}  // namespace lc
