// How fast a machine works: measured here by a few small steps, or a GPU's known figures. Time of a planned step from either.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "train/plan.h"

namespace lc {

struct Rate {  // of an operator: what its operations take, and its bytes, one after the other; but a call takes no less than it costs to
               // start
  double flops_per_s = 0, bytes_per_s = 0, call_s = 0;  // 0: costs nothing
  double seconds(const ProfileRow& work) const;
};

struct Rates {
  std::map<std::pair<std::string, Direction>, Rate> of;
  double per_token_s = 0;  // of a step: everything that is no operator's
};

struct Machine {                // NOLINT(bugprone-reserved-identifier): of the copy that the compiler writes
  std::string name, source;     // source: where the rates are from
  Rates stage[2];               // an operator's shapes differ between them
  double memory_bytes = 0;      // 0: not known
  double link_bytes_per_s = 0;  // what a rank sends to the others in a second
  std::string link_source;
};

const std::vector<std::string>& gpu_names();      // h100, h200, a100
Machine gpu(const std::string& name, int ranks);  // UsageError for another name

// A few steps of each stage that runs, with the model and the batches of the run but few samples of each; about `seconds` each. Takes the
// memory of the whole model.
Machine measure_machine(const Options& options, Dataset& data, const Queue& queue, double seconds);

struct StageTime {                                      // of a step, seconds
  double compute_s = 0, gradients_s = 0, gather_s = 0;  // nothing of the communication is hidden
  std::vector<ProfileRow> operators;                    // of compute_s, with their seconds
  double step_s() const { return compute_s + gradients_s + gather_s; }
};
StageTime time_of(const StagePlan& stage, const Machine& machine);

}  // namespace lc
