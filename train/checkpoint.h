// checkpoints/stage2-step-00000500/: a model folder plus trainer/ with moments, position and configuration. The model folder's
// weights are the float masters, so a resumed run continues with the same bits.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/snapshot.h"
#include "models/langcell/model_folder.h"

namespace lc {

struct TrainerState {
  int stage = 1;
  std::int64_t step = 0;  // done within the stage; the order gives epoch and position from it
  std::uint64_t seed = 0;
  int ranks = 1;
  friend bool operator==(const TrainerState&, const TrainerState&) = default;
};

struct CheckpointContents {
  const LangCell& model;
  const ModelFacts& facts;
  TrainerState state;
  std::string config;       // the resolved configuration
  LangCell::Parts parts{};  // what is trained by now: a stage 1 leaves the text tower out
};

std::string checkpoint_name(int stage, std::int64_t step);  // stage2-step-00000500

// Writes the numbers of the snapshot, syncs, reads and hashes them again, and only then removes all but the newest `keep` checkpoints.
// Returns its path.
std::filesystem::path write_checkpoint(const std::filesystem::path& checkpoints, const CheckpointContents& contents,
                                       const ParameterSnapshot& numbers, std::int64_t keep);

struct FoundCheckpoint {
  std::optional<std::filesystem::path> path;  // the newest that is complete
  std::vector<std::string> warnings;          // one line per newer one that is not
};
FoundCheckpoint newest_checkpoint(const std::filesystem::path& checkpoints);  // checks hashes: reads the checkpoint once

TrainerState read_trainer_state(const std::filesystem::path& checkpoint);  // ModelError when missing or damaged
std::string read_checkpoint_config(const std::filesystem::path& checkpoint);

// Weights and moments into a model whose training memory is allocated; parts that the checkpoint lacks keep theirs.
void restore(const std::filesystem::path& checkpoint, LangCell& model);

}  // namespace lc
