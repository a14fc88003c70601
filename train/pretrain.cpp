#include "train/pretrain.h"

#include <fmt/format.h>
#include <omp.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/build.h"
#include "engine/comm_timed.h"
#include "engine/errors.h"
#include "engine/folder_lock.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "train/checkpoint_writer.h"
#include "train/exits.h"
#include "train/run_manifest.h"
#include "train/schedule.h"
#include "train/stage.h"
#include "train/start_model.h"
#include "train/step.h"
#include "train/stop.h"
#include "train/validate.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Run {
 public:
  Run(const PretrainSetup& setup, Communicator& ranks)
      : setup_(setup), options_(setup.options), ranks_(ranks), data_({options_.data.corpus.begin(), options_.data.corpus.end()}) {}
  PretrainOutcome operator()();

 private:
  void resolve_precision();
  bool is_finished() const;
  bool writes() const { return ranks_.rank() == 0; }  // the others compute and are silent
  void compare_ranks();
  void create_folder();
  void open_folder();
  void hold_out();
  void freeze(int stage) { freeze_for_stage(options_, stage, {cell_loaded_, text_loaded_}, model_->parameters()); }
  void announce(int stage) const;
  void announce(const TypeShares& shares) const;
  void run_stage(int stage);
  void warn_of_one_group(int stage, std::int64_t step);
  void checkpoint(int stage, std::int64_t step);
  bool any_asked();
  void finish();
  std::optional<RankSpread> compare_times(const PendingStep& own, double step_seconds, const TimedCommunicator::Waited& waited);
  StepRecord record(int stage, std::int64_t step, const StepResult& r, double lr, double step_seconds) const;
  LangCell::Parts trained_parts(int stage) const;
  SampleOrder order_of(int stage);
  std::int64_t steps_of(int stage, const SampleOrder& order) const;

  Queue queue() const { return setup_.queue ? *setup_.queue : queue_named(options_.train.device, "train.device"); }

  const PretrainSetup& setup_;
  Options options_;
  TimedCommunicator ranks_;
  Dataset data_;
  std::unique_ptr<LangCell> model_;
  ModelFacts facts_;
  nlohmann::json earlier_;  // manifest.json of the run that is resumed, else null
  bool text_loaded_ = false, cell_loaded_ = false;
  Samples held_out_;
  TrainerState start_{1, 0, 0, 1};
  std::unique_ptr<FolderLock> lock_;               // of the run folder
  std::unique_ptr<CheckpointWriter> checkpoints_;  // of rank 0
  std::unique_ptr<TrainLog> log_;
  std::unique_ptr<Progress> progress_;
  std::int64_t done_ = 0, done_before_ = 0, stage_steps_[2] = {};
};

// A resumed run keeps the precision it began with, whatever "auto" means on this machine.
void Run::resolve_precision() {
  earlier_ = read_run_manifest(setup_.run, setup_.warn);
  std::string& precision = options_.train.precision;
  if (precision != "auto") return;
  if (fs::exists(setup_.run / "config.resolved.toml") && setup_.resume == Resume::yes)
    precision = read_options(setup_.run / "config.resolved.toml", {}).train.precision;
  if (precision != "auto") return;
  precision = automatic_precision(Work::training, queue().device) == DType::bf16 ? "bf16" : "fp32";
}

// With more steps than it began with, a finished run goes on.
bool Run::is_finished() const {
  if (setup_.resume == Resume::no || !has_manifest(setup_.run / "model")) return false;
  if (!fs::exists(setup_.run / "config.resolved.toml")) return true;
  const Options before = read_options(setup_.run / "config.resolved.toml", {});
  require_resumable(before, options_);
  const auto same = [&](int stage) {
    return before.stage(stage).steps == options_.stage(stage).steps && before.stage(stage).epochs == options_.stage(stage).epochs;
  };
  return same(1) && same(2);
}

// All ranks were built, configured and fed alike, or their numbers would be of different runs.
void Run::compare_ranks() {
  if (ranks_.size() == 1) return;
  std::string alike = fmt::format("{} {} {}\n{}", build::kVersion, build::kCompiler, instruction_set(), to_toml(options_));
  for (const Corpus& c : data_.corpora()) alike += c.content_hash();
  const auto own = static_cast<std::int64_t>(fnv1a(alike));
  const std::vector<std::int64_t> all = ranks_.all_gather_rows(std::span(&own, 1));
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r] != all[0])
      throw UsageError(fmt::format(
          "rank {} differs from rank 0 in version, instruction set, configuration or corpus; start all ranks with the same", r));
  }
}

// New run: an empty folder. Resumed run: the same configuration, the newest whole checkpoint. Rank 0 alone writes.
void Run::create_folder() {
  std::error_code failed;
  const bool occupied = fs::exists(setup_.run) && !fs::is_empty(setup_.run, failed);
  if (occupied && setup_.resume == Resume::no)
    throw UsageError(fmt::format("{}: is not empty; add --resume to continue it, or choose another --run", setup_.run.string()));
  fs::create_directories(setup_.run / "checkpoints", failed);
  if (failed)
    throw ResourceError(fmt::format("{}: cannot create the run folder: {}; choose another --run", setup_.run.string(), failed.message()));
  lock_ = std::make_unique<FolderLock>(setup_.run);
  forget_exits(setup_.run);
  remove_leftovers(setup_.run), remove_leftovers(setup_.run / "checkpoints");
  if (fs::exists(setup_.run / "config.resolved.toml")) require_resumable(read_options(setup_.run / "config.resolved.toml", {}), options_);
  const FoundCheckpoint found = newest_checkpoint(setup_.run / "checkpoints");
  for (const std::string& warning : found.warnings) setup_.warn(warning);
  if (found.path) start_ = read_trainer_state(*found.path);
  cut_log(setup_.run / "train.jsonl", found.path ? start_.stage : 0, found.path ? start_.step : 0);
  write_file(setup_.run / "config.resolved.toml", to_toml(options_));
  write_run_manifest(
      setup_.run,
      {name_of(model_->parameters().queue()), name_of(model_->parameters().storage()), ranks_.size(), {stage_steps_[0], stage_steps_[1]}},
      data_);
  checkpoints_ = std::make_unique<CheckpointWriter>(setup_.run / "checkpoints", options_.checkpoint.keep);
  checkpoints_->reserve(*model_);
  log_ = std::make_unique<TrainLog>(setup_.run / "train.jsonl", options_.train.tensorboard ? setup_.run / "tensorboard" : fs::path());
}

// What rank 0 found is where all begin.
void Run::open_folder() {
  if (writes()) create_folder();
  std::int64_t from[] = {start_.stage, start_.step};
  ranks_.broadcast(std::as_writable_bytes(std::span(from)), 0);
  start_.stage = static_cast<int>(from[0]), start_.step = from[1];
  if (start_.step == 0) return;
  const fs::path checkpoint = setup_.run / "checkpoints" / checkpoint_name(start_.stage, start_.step);
  restore(checkpoint, *model_);
  setup_.say(fmt::format("resumed from {}", checkpoint.string()));
}

void Run::hold_out() {
  const auto seed = static_cast<std::uint64_t>(options_.train.seed);
  if (options_.data.holdout <= 0) return;
  const double share = options_.data.holdout;
  if (const std::string& key = options_.data.holdout_by; !key.empty()) {
    data_.for_column(key, [&](std::int64_t c, const std::string& group) {
      if (is_held_out(seed, share, group)) held_out_.push_back(c);
    });
  } else {
    for (std::int64_t c = 0; c < data_.cells(); ++c) {
      if (is_held_out(seed, share, c)) held_out_.push_back(c);
    }
  }
  if (held_out_.empty() || std::ssize(held_out_) == data_.cells())
    throw UsageError(fmt::format("data.holdout: {} of {} cells would be held out{}; choose another share{}", held_out_.size(),
                                 data_.cells(), options_.data.holdout_by.empty() ? "" : " by whole groups of " + options_.data.holdout_by,
                                 options_.data.holdout_by.empty() ? "" : " or another column, or leave holdout_by out"));
  setup_.say(fmt::format("{} of {} cells are held out for validation", held_out_.size(), data_.cells()));
}

SampleOrder Run::order_of(int stage) {
  CellSet cells(data_.cells(), [next = held_out_.begin(), end = held_out_.end()](std::int64_t c) mutable {  // asked in order
    const bool held = next != end && *next == c;
    next += held;
    return !held;
  });
  OrderSetup setup{static_cast<std::uint64_t>(options_.train.seed), static_cast<std::uint32_t>(stage), options_.train.batch_size,
                   [this](std::int64_t c) { return data_.length(c, model_->config().max_cell_tokens); }};
  if (options_.data.sampling == "sqrt_type") {
    if (data_.groups().empty()) throw UsageError("data.sampling: sqrt_type wants cells with texts, the corpus has none; set it to uniform");
    setup.type = [this](std::int64_t c) { return data_.type(c); };
  }
  return SampleOrder(std::move(cells), std::move(setup));
}

std::int64_t Run::steps_of(int stage, const SampleOrder& order) const {
  const StageOptions& s = options_.stage(stage);
  return s.epochs > 0 ? order.steps_of(s.epochs) : s.steps;
}

void Run::announce(int stage) const {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> modules;
  for (const NamedParameter& p : model_->parameters().named()) {
    auto& [trained, frozen] = modules[p.name.substr(0, p.name.find('.'))];
    (p.frozen ? frozen : trained) += p.shape.count();
  }
  for (const auto& [name, count] : modules)
    setup_.say(fmt::format("stage {}: {:<10} {:>12} parameters trained, {:>12} frozen", stage, name, count.first, count.second));
}

void Run::announce(const TypeShares& shares) const {
  const auto times = [](const TypeShares::Type& t) { return static_cast<double>(t.places) / static_cast<double>(t.cells); };
  const auto [least, most] =
      std::minmax_element(shares.types().begin(), shares.types().end(), [](const auto& a, const auto& b) { return a.cells < b.cells; });
  setup_.say(
      fmt::format("sampling by type: {} types; a cell of the smallest ({} cells) comes {:.2f} times an epoch, of the largest ({}) {:.2f}",
                  shares.types().size(), least->cells, times(*least), most->cells, times(*most)));
}

LangCell::Parts Run::trained_parts(int stage) const {
  LangCell::Parts parts;
  if (!text_loaded_ && !(stage == 2 && uses_text(options_))) parts.text = LangCell::Part::absent;
  if (!model_->has_mgm_head()) parts.mgm_head = LangCell::Part::absent;
  return parts;
}

void Run::checkpoint(int stage, std::int64_t step) {
  if (!writes()) return;
  const TrainerState state{stage, step, static_cast<std::uint64_t>(options_.train.seed), ranks_.size()};
  checkpoints_->begin({*model_, facts_, state, to_toml(options_), trained_parts(stage)});
}

StepRecord Run::record(int stage, std::int64_t step, const StepResult& r, double lr, double step_seconds) const {
  StepRecord s;
  s.stage = stage, s.step = step, s.losses = {r.loss, r.mgm, r.cell_cell, r.cell_text, r.matching};
  s.lr = lr, s.grad_norm = r.gradient_norm, s.data_s = r.data_seconds, s.step_s = step_seconds;
  s.samples_per_s = static_cast<double>(options_.train.batch_size) / step_seconds,
  s.tokens_per_s = static_cast<double>(r.tokens) / step_seconds;
  s.skipped_negatives = r.skipped_negatives, s.peak_bytes = static_cast<std::int64_t>(memory_use(model_->parameters().queue()).peak);
  return s;
}

// How alike the ranks were, at the cost of one small gather. All ranks call it.
std::optional<RankSpread> Run::compare_times(const PendingStep& own, double step_seconds, const TimedCommunicator::Waited& waited) {
  if (ranks_.size() == 1) return {};
  const auto tokens = static_cast<float>(own.known.tokens);
  const auto data = static_cast<float>(own.known.data_seconds), comm = static_cast<float>(waited.all);
  const float numbers[] = {data, comm, static_cast<float>(waited.sums), static_cast<float>(step_seconds) - comm, tokens};
  const std::vector<float> all = ranks_.all_gather_rows(std::span<const float>(numbers), std::size(numbers));
  std::vector<RankTimes> each;
  for (std::size_t i = 0; i < all.size(); i += std::size(numbers)) each.push_back({all[i], all[i + 1], all[i + 2], all[i + 3], all[i + 4]});
  return spread_of(each, step_seconds);
}

void Run::warn_of_one_group(int stage, std::int64_t step) {
  progress_->clear();
  setup_.warn(fmt::format(
      "stage {}, step {}: all cells of the batch share one text, so cell_text has weight 0 there; a larger batch_size helps", stage, step));
}

// Every so many steps, counted from 1; 0: never.
static bool is_due(std::int64_t every, std::int64_t n) { return every > 0 && (n + 1) % every == 0; }

void Run::run_stage(int stage) {
  SampleOrder order = order_of(stage);
  const std::int64_t steps = steps_of(stage, order), first = stage == start_.stage ? start_.step : 0;
  const StageOptions& s = options_.stage(stage);
  const Schedule schedule{s.lr, steps, warmup_steps(s, steps, fmt::format("stage{}", stage)), s.decay};
  freeze(stage);
  announce(stage);
  if (order.shares()) announce(*order.shares());
  if (first == 0) model_->parameters().zero_moments();
  const StepRule how = step_rule(options_, stage, model_->config().max_cell_tokens);
  Step step(*model_, data_, ranks_, how);
  const Share share{ranks_.rank(), ranks_.size(), options_.train.accumulate};
  const auto length = [this](std::int64_t c) { return data_.length(c, model_->config().max_cell_tokens); };
  const auto prepare = [&](std::int64_t n) {  // the disk works while a step is computed
    std::vector<Samples> parts = micro_batches(order.batch(n), length, share);
    for (const Samples& part : parts) data_.read_soon(part);
    return parts;
  };
  std::vector<Samples> next = first < steps ? prepare(first) : std::vector<Samples>();
  std::int64_t one_group_steps = 0;
  std::vector<PendingStep> waiting;
  auto since = Clock::now();
  ranks_.take();
  reset_memory_peak(model_->parameters().queue());
  for (std::int64_t n = first; n < steps; ++n) {
    const std::vector<Samples> now = std::exchange(next, {});
    if (n + 1 < steps) next = prepare(n + 1);
    waiting.push_back(step.begin(static_cast<std::uint32_t>(n), now, static_cast<float>(schedule.lr(n))));
    const bool last = n + 1 == steps, logs = (n + 1) % options_.train.log_every == 0 || n == first || last;
    const bool asked = any_asked();
    // The numbers of a step wait on a GPU until somebody has to know them: the same steps on all ranks, who sum what they know.
    if (logs || waiting.back().result || is_due(options_.checkpoint.every, n) || is_due(options_.validate.every, n) || asked) {
      StepRecord line;
      std::vector<StepResult> results;  // first of all: a GPU's time is over when they are there
      for (const PendingStep& w : waiting) results.push_back(step.finish(w));
      const double steps_waiting = static_cast<double>(waiting.size()), each = seconds_since(since) / steps_waiting;
      TimedCommunicator::Waited waited = ranks_.take();
      waited.all /= steps_waiting, waited.sums /= steps_waiting;
      for (std::size_t i = 0; i < waiting.size(); ++i) {
        const StepResult& r = results[i];
        line = record(stage, waiting[i].number + 1, r, schedule.lr(waiting[i].number), each);
        if (r.one_group_only && one_group_steps++ == 0) warn_of_one_group(stage, line.step);
      }
      line.epoch = static_cast<double>(n + 1) / static_cast<double>(order.batches_per_epoch());
      done_ += std::ssize(waiting);
      if (logs) line.ranks = compare_times(waiting.back(), each, waited);
      if (logs && log_) log_->write(line);
      progress_->update(line, done_before_ + done_);
      waiting.clear();
      reset_memory_peak(model_->parameters().queue());
    }
    const bool validates = !held_out_.empty() && options_.validate.every > 0 && (is_due(options_.validate.every, n) || last);
    if (validates) {
      ValidationRecord v = validate(*model_, data_, ranks_, how, {held_out_, options_.train.batch_size});
      v.step = n + 1;
      if (log_) log_->write(v);
    }
    const bool saves = asked || last || is_due(options_.checkpoint.every, n);
    if (saves) checkpoint(stage, n + 1);
    if (checkpoints_) asked || last ? checkpoints_->wait() : checkpoints_->check();
    // Nobody leaves while rank 0 writes: a launcher may end what is left. Nor is the wait for it a part of the next step.
    if (validates || saves) ranks_.barrier();
    if (asked) {
      progress_->clear();
      throw Stopped(fmt::format("{}: stopped by {} after stage {}, step {}; the same command with --resume continues", setup_.run.string(),
                                StopRequest::signal_name(), stage, n + 1));
    }
    if (waiting.empty()) since = Clock::now(), ranks_.take();  // validating and saving are no part of the next step
  }
  progress_->clear();
  if (one_group_steps > 0)
    setup_.warn(fmt::format("stage {}: in {} of {} steps all cells shared one text", stage, one_group_steps, steps - first));
}

// A signal may reach one rank before the others: all stop at the same step. The host's own path, which waits for no GPU.
bool Run::any_asked() {
  double asked = StopRequest::asked();
  ranks_.all_reduce_sum(std::span<double>(&asked, 1));
  return asked > 0;
}

void Run::finish() {
  if (!writes()) return ranks_.barrier();
  facts_.history.push_back(fmt::format("langcell {}: pre-trained on {} cells, seed {}", build::kVersion,
                                       data_.cells() - std::ssize(held_out_), options_.train.seed));
  AtomicFolder folder(setup_.run / "model", Existing::replace);
  write_model(folder.partial_path(), *model_, facts_, trained_parts(options_.stage2.runs() ? 2 : 1));
  write_manifest(folder.partial_path());
  folder.commit();
  ranks_.barrier();
}

PretrainOutcome Run::operator()() {
  const auto begin = Clock::now();
  std::optional<StopRequest> listening;
  if (ranks_.size() > 1) listening.emplace();  // at once: a launcher sends SIGTERM when a rank is gone, and the others are to say why
  if (!options_.stage1.runs() && !options_.stage2.runs())
    throw UsageError("stage1.steps, stage2.steps: both stages are skipped, there is nothing to do");
  resolve_precision();
  compare_ranks();
  compare_run_manifest(earlier_, name_of(queue()), data_, setup_.warn);
  if (is_finished()) {
    if (writes()) forget_exits(setup_.run), remove_leftovers(setup_.run);  // of a rank that was lost after the model was whole
    setup_.say(fmt::format("{}: this run is finished", setup_.run.string()));
    return {0, 0, setup_.run / "model"};
  }
  StartModel start = start_model(options_, data_, queue(), setup_.say, setup_.warn);
  model_ = std::move(start.model), facts_ = std::move(start.facts), cell_loaded_ = start.cell_loaded, text_loaded_ = start.text_loaded;
  hold_out();
  std::int64_t total = 0;
  for (const int stage : {1, 2}) {  // whatever is wrong with a stage is said before anything is written
    if (!options_.stage(stage).runs()) continue;
    std::int64_t& steps = stage_steps_[stage - 1];
    total += steps = steps_of(stage, order_of(stage));
    warmup_steps(options_.stage(stage), steps, fmt::format("stage{}", stage));
    freeze(stage);
  }
  open_folder();
  done_before_ = start_.step + (start_.stage == 2 ? stage_steps_[0] : 0);
  progress_ = std::make_unique<Progress>(total, done_before_, setup_.progress);
  if (!listening) listening.emplace();
  for (const int stage : {1, 2}) {
    if (options_.stage(stage).runs() && stage >= start_.stage) run_stage(stage);
  }
  finish();
  return {done_, seconds_since(begin), setup_.run / "model"};
}

}  // namespace

PretrainOutcome pretrain(const PretrainSetup& setup, Communicator& ranks) { return Run(setup, ranks)(); }

}  // namespace lc
