#include "train/pretrain.h"

#include <fmt/format.h>
#include <omp.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/build.h"
#include "engine/errors.h"
#include "engine/folder_lock.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "train/checkpoint.h"
#include "train/exits.h"
#include "train/schedule.h"
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
  void compare_manifest() const;
  bool writes() const { return ranks_.rank() == 0; }  // the others compute and are silent
  void compare_ranks();
  void create_folder();
  void open_folder();
  void write_manifest_json() const;
  void hold_out();
  StepRule rule(int stage) const;
  void freeze(int stage);
  void announce(int stage) const;
  void run_stage(int stage);
  void warn_of_one_group(int stage, std::int64_t step);
  void checkpoint(int stage, std::int64_t step);
  bool any_asked();
  void finish();
  StepRecord record(int stage, std::int64_t step, const StepResult& r, double lr, double step_seconds) const;
  LangCell::Parts trained_parts(int stage) const;
  SampleOrder order_of(int stage);
  std::int64_t steps_of(int stage, const SampleOrder& order) const;

  Queue queue() const { return setup_.queue ? *setup_.queue : queue_named(options_.train.device, "train.device"); }

  const PretrainSetup& setup_;
  Options options_;
  Communicator& ranks_;
  Dataset data_;
  std::unique_ptr<LangCell> model_;
  ModelFacts facts_;
  nlohmann::json earlier_;  // manifest.json of the run that is resumed, else null
  bool text_loaded_ = false, cell_loaded_ = false;
  Samples held_out_;
  TrainerState start_{1, 0, 0, 1};
  std::unique_ptr<FolderLock> lock_;  // of the run folder
  std::unique_ptr<TrainLog> log_;
  std::unique_ptr<Progress> progress_;
  std::int64_t done_ = 0, done_before_ = 0;
};

// A resumed run keeps the precision it began with, whatever "auto" means on this machine.
void Run::resolve_precision() {
  if (fs::exists(setup_.run / "manifest.json")) earlier_ = nlohmann::json::parse(read_file(setup_.run / "manifest.json"), nullptr, false);
  std::string& precision = options_.train.precision;
  if (precision != "auto") return;
  if (fs::exists(setup_.run / "config.resolved.toml") && setup_.resume == Resume::yes)
    precision = read_options(setup_.run / "config.resolved.toml", {}).train.precision;
  if (precision != "auto") return;
  precision = automatic_precision(Work::training, queue().device) == DType::bf16 ? "bf16" : "fp32";
}

// The same run again: the same data, and a word when the machine computes with other instructions.
void Run::compare_manifest() const {
  if (!earlier_.is_object()) return;
  const auto data = earlier_.value("data", nlohmann::json::array());
  for (std::size_t i = 0; i < data_.corpora().size() && i < data.size(); ++i) {
    if (data[i].value("content_sha256", "") == data_.corpora()[i].content_hash()) continue;
    throw UsageError(
        fmt::format("data.corpus: {} is not the corpus this run began with (its content hash differs); give that one, or start another run",
                    data_.corpora()[i].path().string()));
  }
  const std::string device = name_of(queue());
  for (const auto& [key, now] : {std::pair{"device", device}, {"instruction_set", instruction_set()}}) {
    const std::string before = earlier_.value(key, now);
    if (before == now) continue;
    setup_.warn(
        fmt::format("{}: this run began with {} and continues with {}: results agree to rounding, not to the bit", key, before, now));
    break;
  }
}

void Run::write_manifest_json() const {
  nlohmann::ordered_json corpora = nlohmann::ordered_json::array();
  for (const Corpus& c : data_.corpora())
    corpora.push_back({{"file", c.path().string()}, {"content_sha256", c.content_hash()}, {"cells", c.cells()}, {"tokens", c.tokens()}});
  const nlohmann::ordered_json manifest = {{"version", build::kVersion},
                                           {"build", fmt::format("{}, {}", build::kCompiler, build::kType)},
                                           {"device", name_of(model_->parameters().queue())},
                                           {"instruction_set", instruction_set()},
                                           {"threads", omp_get_max_threads()},
                                           {"ranks", ranks_.size()},
                                           {"precision", name_of(model_->parameters().storage())},
                                           {"gene_vocabulary", data_.vocabulary().hash()},
                                           {"data", corpora}};
  write_file(setup_.run / "manifest.json", manifest.dump(2) + "\n");
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
  write_manifest_json();
  log_ = std::make_unique<TrainLog>(setup_.run / "train.jsonl");
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
  const std::vector<std::string> groups =
      options_.data.holdout_by.empty() ? std::vector<std::string>() : data_.column(options_.data.holdout_by);
  for (std::int64_t c = 0; c < data_.cells(); ++c) {
    if (groups.empty() ? is_held_out(seed, options_.data.holdout, c) : is_held_out(seed, options_.data.holdout, groups[c]))
      held_out_.push_back(c);
  }
  setup_.say(fmt::format("{} of {} cells are held out for validation", held_out_.size(), data_.cells()));
}

SampleOrder Run::order_of(int stage) {
  CellSet cells(data_.cells(), [&](std::int64_t c) { return !std::binary_search(held_out_.begin(), held_out_.end(), c); });
  return SampleOrder(std::move(cells),
                     {static_cast<std::uint64_t>(options_.train.seed), static_cast<std::uint32_t>(stage), options_.train.batch_size,
                      [this](std::int64_t c) { return data_.length(c, model_->config().max_cell_tokens); }});
}

std::int64_t Run::steps_of(int stage, const SampleOrder& order) const {
  const StageOptions& s = options_.stage(stage);
  return s.epochs > 0 ? order.steps_of(s.epochs) : s.steps;
}

StepRule Run::rule(int stage) const {
  const StageOptions& s = options_.stage(stage);
  StepRule r;
  r.seed = static_cast<std::uint64_t>(options_.train.seed), r.stage = static_cast<std::uint32_t>(stage);
  r.mgm = static_cast<float>(s.objectives.mgm), r.cell_cell = static_cast<float>(s.objectives.cell_cell),
  r.cell_text = static_cast<float>(s.objectives.cell_text), r.matching = static_cast<float>(s.objectives.matching);
  r.temperature = static_cast<float>(s.temperature), r.mask_rate = static_cast<float>(s.mask_rate), r.clip = static_cast<float>(s.clip),
  r.weight_decay = static_cast<float>(s.weight_decay);
  r.masked_pass = s.share_pass ? StepRule::MaskedPass::view_b : StepRule::MaskedPass::own;
  r.same_text = s.same_text, r.related = s.related, r.field_dropout = options_.data.field_dropout;
  r.activations = options_.train.recompute ? PassOptions::Activations::recompute : PassOptions::Activations::keep;
  r.max_cell_tokens = model_->config().max_cell_tokens;
  return r;
}

// The user's globs, and whatever the stage's objectives do not reach: those weights must not even decay.
void Run::freeze(int stage) {
  const StageOptions& s = options_.stage(stage);
  Parameters& parameters = model_->parameters();
  if (const auto idle = parameters.freeze(s.freeze); !idle.empty())
    throw UsageError(fmt::format("stage{}.freeze: '{}' matches no tensor; langcell info MODEL shows what there is", stage, idle.front()));
  const auto whole_tower_frozen = [&](const std::string& prefix) {
    const auto& all = parameters.named();
    return std::all_of(all.begin(), all.end(), [&](const NamedParameter& p) { return p.name.rfind(prefix, 0) != 0 || p.frozen; });
  };
  const bool text = rule(stage).cells_need_text();
  const bool cell_trained = cell_loaded_ || (stage == 2 && options_.stage1.runs());
  if (!cell_trained && whole_tower_frozen("cell_bert."))
    throw UsageError(fmt::format("stage{}.freeze: freezes the whole cell tower, which was neither loaded nor trained", stage));
  if (text && !text_loaded_ && whole_tower_frozen("text_bert."))
    throw UsageError(fmt::format("stage{}.freeze: freezes the whole text tower, which was neither loaded nor trained", stage));

  std::vector<std::string> globs = s.freeze;
  if (!text) globs.push_back("text_bert.*");
  if (s.objectives.cell_text <= 0) globs.push_back("text_proj.*");
  if (s.objectives.matching <= 0) globs.insert(globs.end(), {"ctm_head.*", "text_bert.*.crossattention.*"});
  if (s.objectives.mgm <= 0) globs.push_back("mgm_head.*");
  if (s.objectives.cell_text <= 0 && s.objectives.cell_cell <= 0) globs.push_back("cell_proj.*");
  parameters.freeze(globs);
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

LangCell::Parts Run::trained_parts(int stage) const {
  LangCell::Parts parts;
  if (!text_loaded_ && !(stage == 2 && uses_text(options_))) parts.text = LangCell::Part::absent;
  if (!model_->has_mgm_head()) parts.mgm_head = LangCell::Part::absent;
  return parts;
}

void Run::checkpoint(int stage, std::int64_t step) {
  if (!writes()) return;
  const TrainerState state{stage, step, static_cast<std::uint64_t>(options_.train.seed), ranks_.size()};
  write_checkpoint(setup_.run / "checkpoints", {*model_, facts_, state, to_toml(options_), trained_parts(stage)}, options_.checkpoint.keep);
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
  if (first == 0) model_->parameters().zero_moments();
  const StepRule how = rule(stage);
  Step step(*model_, data_, ranks_, how);
  const Share share{ranks_.rank(), ranks_.size(), options_.train.accumulate};
  const auto length = [this](std::int64_t c) { return data_.length(c, model_->config().max_cell_tokens); };
  std::int64_t one_group_steps = 0;
  std::vector<PendingStep> waiting;
  auto since = Clock::now();
  reset_memory_peak(model_->parameters().queue());
  for (std::int64_t n = first; n < steps; ++n) {
    waiting.push_back(
        step.begin(static_cast<std::uint32_t>(n), micro_batches(order.batch(n), length, share), static_cast<float>(schedule.lr(n))));
    const bool last = n + 1 == steps, logs = (n + 1) % options_.train.log_every == 0 || n == first || last;
    const bool asked = any_asked();
    // The numbers of a step wait on a GPU until somebody has to know them: the same steps on all ranks, who sum what they know.
    if (logs || waiting.back().result || is_due(options_.checkpoint.every, n) || is_due(options_.validate.every, n) || asked) {
      StepRecord line;
      const double each = seconds_since(since) / static_cast<double>(waiting.size());
      for (const PendingStep& w : waiting) {
        const StepResult r = step.finish(w);
        line = record(stage, w.number + 1, r, schedule.lr(w.number), each);
        if (r.one_group_only && one_group_steps++ == 0) warn_of_one_group(stage, line.step);
      }
      line.epoch = static_cast<double>(n + 1) / static_cast<double>(order.batches_per_epoch());
      done_ += std::ssize(waiting);
      if (logs && log_) log_->write(line);
      progress_->update(line, done_before_ + done_);
      waiting.clear();
      since = Clock::now();
      reset_memory_peak(model_->parameters().queue());
    }
    if (!held_out_.empty() && options_.validate.every > 0 && (is_due(options_.validate.every, n) || last)) {
      ValidationRecord v = validate(*model_, data_, ranks_, how, {held_out_, options_.train.batch_size});
      v.step = n + 1;
      if (log_) log_->write(v);
    }
    if (asked || last || is_due(options_.checkpoint.every, n)) checkpoint(stage, n + 1);
    if (asked) {
      ranks_.barrier();  // nobody leaves while rank 0 writes: a launcher may end what is left
      progress_->clear();
      throw Stopped(fmt::format("{}: stopped by {} after stage {}, step {}; the same command with --resume continues", setup_.run.string(),
                                StopRequest::signal_name(), stage, n + 1));
    }
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
  if (setup_.resume == Resume::yes && has_manifest(setup_.run / "model")) {
    setup_.say(fmt::format("{}: this run is finished", setup_.run.string()));
    return {0, 0, setup_.run / "model"};
  }
  if (!options_.stage1.runs() && !options_.stage2.runs())
    throw UsageError("stage1.steps, stage2.steps: both stages are skipped, there is nothing to do");
  resolve_precision();
  compare_ranks();
  compare_manifest();
  StartModel start = start_model(options_, data_, queue(), setup_.say, setup_.warn);
  model_ = std::move(start.model), facts_ = std::move(start.facts), cell_loaded_ = start.cell_loaded, text_loaded_ = start.text_loaded;
  hold_out();
  std::int64_t total = 0, steps[3] = {};
  for (const int stage : {1, 2}) {  // whatever is wrong with a stage is said before anything is written
    if (!options_.stage(stage).runs()) continue;
    total += steps[stage] = steps_of(stage, order_of(stage));
    warmup_steps(options_.stage(stage), steps[stage], fmt::format("stage{}", stage));
    freeze(stage);
  }
  open_folder();
  done_before_ = start_.step + (start_.stage == 2 ? steps[1] : 0);
  progress_ = std::make_unique<Progress>(total, done_before_, setup_.progress);
  const StopRequest listening;
  for (const int stage : {1, 2}) {
    if (options_.stage(stage).runs() && stage >= start_.stage) run_stage(stage);
  }
  finish();
  return {done_, seconds_since(begin), setup_.run / "model"};
}

}  // namespace

PretrainOutcome pretrain(const PretrainSetup& setup, Communicator& ranks) { return Run(setup, ranks)(); }

}  // namespace lc
