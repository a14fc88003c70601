// train.jsonl, one object a line and flushed, with its twin for TensorBoard, and the line of progress on standard error.
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/event_file.h"

namespace lc {

struct LoggedLosses {  // means; absent: inactive
  double loss = 0;
  std::optional<double> mgm{}, cell_cell{}, cell_text{}, matching{};
};

struct RankTimes {    // of one rank, seconds of a step
  double data_s = 0;  // preparing the batch
  double comm_s = 0;  // in collectives, waiting for slower ranks included: what of the communication is exposed
  double sums_s = 0;  // of comm_s, for the sums of the gradients: what backward did not hide of them
  double work_s = 0;  // the rest of the step
  double tokens = 0;  // of its share
};

// What a logged line says of several ranks.
struct RankSpread {
  struct Spread {
    double least = 0, mean = 0, most = 0;
  };
  Spread data_s, work_s, comm_s, sums_s, tokens_per_s;
  double imbalance = 0;  // most work / mean work − 1: the share of a step for which the others wait
  int slowest = 0;       // the rank with the most work
};
RankSpread spread_of(std::span<const RankTimes> ranks, double step_seconds);  // at least one rank

struct StepRecord {
  int stage = 1;
  std::int64_t step = 0;  // done within the stage, from 1
  double epoch = 0;       // done within the stage, with its fraction
  LoggedLosses losses{};
  double lr = 0, grad_norm = 0, samples_per_s = 0, tokens_per_s = 0, data_s = 0, step_s = 0;
  std::int64_t skipped_negatives = 0, peak_bytes = 0;
  std::optional<RankSpread> ranks{};  // of several
};

struct ValidationRecord {
  int stage = 1;
  std::int64_t step = 0, cells = 0;
  LoggedLosses losses{};
  std::optional<double> recall_at_1{}, zero_shot_accuracy{};
  double seconds = 0;
};

class TrainLog {
 public:
  // Appends; ResourceError when it cannot be written. `events`: the folder of TensorBoard's file, written anew from the log; empty: none.
  explicit TrainLog(const std::filesystem::path& path, const std::filesystem::path& events = {});
  ~TrainLog();
  TrainLog(const TrainLog&) = delete;
  TrainLog& operator=(const TrainLog&) = delete;
  void write(const StepRecord& record);
  void write(const ValidationRecord& record);

 private:
  void line(nlohmann::ordered_json& object);
  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
  std::unique_ptr<EventFile> events_;
};

// Drops, atomically, what was logged after this step of this stage (0, 0: all), and a line that a crash cut short. No log: nothing to do.
void cut_log(const std::filesystem::path& path, int stage, std::int64_t step);

// Each loss, rate and time left; in place on a terminal, else a line of its own at most every few seconds.
class Progress {
 public:
  enum class Show : std::uint8_t { automatic, in_place, lines, nothing };
  // `total`: steps of all stages; `done`: those a resumed run has behind it.
  Progress(std::int64_t total, std::int64_t done, Show show = Show::automatic, std::FILE* out = stderr);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(const StepRecord& record, std::int64_t done);  // done: over all stages
  void clear();                                              // before something else is said
  static std::string text(const StepRecord& record, std::int64_t done, std::int64_t total, double seconds_left);

 private:
  using Clock = std::chrono::steady_clock;
  std::int64_t total_;
  Show show_;
  std::FILE* out_;
  Clock::time_point counted_ = Clock::now(), shown_{};
  std::int64_t done_;
  double per_step_ = 0;    // seconds, lately: a machine is not always as fast as it was
  bool standing_ = false;  // a line without its end is on the terminal
};

}  // namespace lc
