// What a run will take, before anything runs: the real step walks the real batches on a queue that is imagined, so memory, operations and
// bytes are those of the program itself, not of formulas beside it.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/profile.h"
#include "train/dataset.h"
#include "train/options.h"

namespace lc {

struct StagePlan {
  int stage = 1;
  std::int64_t steps = 0;
  std::int64_t trained = 0, frozen = 0;         // parameters
  double samples = 0, tokens = 0;               // of a step, this rank's; tokens of all passes over cells and of distinct texts
  std::vector<ProfileRow> work;                 // of a step, this rank's: means over steps of the stage
  std::size_t peak_bytes = 0;                   // of the first step, which runs on the longest batch: `peak_bytes` of train.jsonl
  std::size_t held_bytes = 0;                   // taken from the system for it: on CPUs blocks are of few sizes, and kept
  double gradient_bytes = 0, gather_bytes = 0;  // sent by each rank, a step: the sum of the trained ones' gradients; z and ids of the batch
  double flops() const;                         // of a step, this rank's
};

struct RunPlan {
  std::int64_t parameters = 0;
  std::size_t parameter_bytes = 0;  // weights, gradients, moments and the low-precision copy
  std::size_t snapshot_bytes = 0;   // of rank 0 on the host: what checkpoints are written from; on the CPU a part of every peak
  std::vector<StagePlan> stages;    // those that run
};

struct PlanFor {
  Device device = Device::cpu;
  int ranks = 1;
  double cells = 0;  // above 0: of the corpus that `data` stands for; it counts epochs by them
};

// `options` with the precision resolved. Walks rank 0's share, as if its texts were its own; what is gathered from the others is added.
// UsageError, ModelError as of a run.
RunPlan plan_run(const Options& options, Dataset& data, const PlanFor& what);

}  // namespace lc
