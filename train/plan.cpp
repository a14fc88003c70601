#include "train/plan.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/comm.h"
#include "engine/memory.h"
#include "engine/snapshot.h"
#include "train/order.h"
#include "train/reducer.h"
#include "train/stage.h"
#include "train/start_model.h"
#include "train/step.h"

namespace lc {
namespace {

class Observed {  // operators are counted while it lives
 public:
  Observed() : before_(inspection()) { inspection() = {.profile = true, .check_finite = false}; }
  ~Observed() {
    inspection() = before_;
    reset_profile();
  }
  Observed(const Observed&) = delete;
  Observed& operator=(const Observed&) = delete;

 private:
  Inspection before_;
};

class Walk {
 public:
  Walk(const Options& options, Dataset& data, const PlanFor& what)
      : options_(options), data_(data), what_(what), queue_(imagined_queue(what.device)) {
    const auto quiet = [](const std::string&) {};
    start_ = start_model(options, data, queue_, quiet, quiet);
    length_ = [this](std::int64_t c) { return data_.length(c, model().config().max_cell_tokens); };
  }

  RunPlan operator()() {
    RunPlan plan;
    for (const NamedParameter& p : model().parameters().named()) plan.parameters += p.shape.count();
    plan.parameter_bytes = memory_use(queue_).in_use;
    plan.snapshot_bytes = ParameterSnapshot::bytes(model().parameters());
    snapshot_.reserve(model().parameters());
    for (const int stage : {1, 2}) {
      if (options_.stage(stage).runs()) plan.stages.push_back(walk_stage(stage));
    }
    return plan;
  }

 private:
  LangCell& model() { return *start_.model; }

  StagePlan walk_stage(int stage) {
    constexpr std::int64_t kSamples = 16384;  // large batches are alike: fewer of them say as much
    const std::int64_t most = std::clamp<std::int64_t>(kSamples * what_.ranks / options_.train.batch_size, 2, 16);
    freeze_for_stage(options_, stage, {start_.cell_loaded, start_.text_loaded}, model().parameters());
    SampleOrder order(
        CellSet(data_.cells(), [](std::int64_t) { return true; }),
        {static_cast<std::uint64_t>(options_.train.seed), static_cast<std::uint32_t>(stage), options_.train.batch_size, length_});
    StagePlan plan;
    plan.stage = stage, plan.steps = steps_of(stage);
    for (const NamedParameter& p : model().parameters().named()) (p.frozen ? plan.frozen : plan.trained) += p.shape.count();
    reset_memory_peak(queue_);
    walk_step(stage, 0, order);
    plan.peak_bytes = memory_use(queue_).peak, plan.held_bytes = memory_use(queue_).held;
    const std::int64_t steps = std::min(most, plan.steps), span = std::min(plan.steps, order.batches_per_epoch());
    std::map<std::pair<std::string, Direction>, ProfileRow> work;
    for (std::int64_t i = 0; i < steps; ++i) {
      const Walked walked = walk_step(stage, span * i / steps, order);
      plan.tokens += walked.tokens / static_cast<double>(steps);
      for (const ProfileRow& row : walked.work) add(work[{row.name, row.direction}], row, 1.0 / static_cast<double>(steps));
    }
    for (const auto& [key, row] : work) plan.work.push_back(row);
    plan.samples = static_cast<double>(options_.train.batch_size) / what_.ranks;
    if (what_.ranks > 1) add_other_ranks(plan);
    return plan;
  }

  std::int64_t steps_of(int stage) const {
    const StageOptions& s = options_.stage(stage);
    if (s.epochs <= 0) return s.steps;
    const double cells = what_.cells > 0 ? what_.cells : static_cast<double>(data_.cells());
    return steps_of_epochs(s.epochs, std::llround(cells * (1 - options_.data.holdout)), options_.train.batch_size);
  }

  struct Walked {
    double tokens = 0;
    std::vector<ProfileRow> work;
  };
  Walked walk_step(int stage, std::int64_t number, SampleOrder& order) {
    const Observed observed;
    const auto alone = comm_alone();
    Step step(model(), data_, *alone, step_rule(options_, stage, model().config().max_cell_tokens));
    const Share share{0, what_.ranks, options_.train.accumulate};
    const StepResult r = step.run(static_cast<std::uint32_t>(number), micro_batches(order.batch(number), length_, share), 0);
    return {static_cast<double>(r.tokens), profile_rows()};
  }

  // The contrast is over the batch of all ranks: its z lies on each, and each computes all of it, but negatives for its own cells alone.
  void add_other_ranks(StagePlan& plan) {
    const double n = what_.ranks, width = model().config().projection;
    const Objectives& o = options_.stage(plan.stage).objectives;
    const bool text = o.cell_text > 0 || o.matching > 0;
    const double vectors = !(o.cell_cell > 0 || text) ? 0 : 1.0 + (o.cell_cell > 0) + text;  // z of a sample
    for (const GradientSlice& s : gradient_slices(model().parameters(), Reducer::kLeastSlice))
      plan.gradient_bytes += 2 * (n - 1) / n * 4 * static_cast<double>(s.end - s.begin);
    plan.gather_bytes = (n - 1) * plan.samples * (vectors * width * 4 + 8 + (text ? 16 : 0));
    const auto others = static_cast<std::size_t>(2 * vectors * width * 4 * (n - 1) * plan.samples);  // with their gradients
    plan.peak_bytes += others, plan.held_bytes += others;
    for (ProfileRow& row : plan.work) {
      if (row.name == "infonce") row.flops *= n * n;
      if (row.name == "negatives") row.flops *= n;
    }
  }

  static void add(ProfileRow& to, const ProfileRow& row, double share) {
    to.name = row.name, to.direction = row.direction;
    to.calls += share * row.calls, to.bytes += share * row.bytes, to.flops += share * row.flops;
  }

  const Options& options_;
  Dataset& data_;
  const PlanFor what_;
  const Queue queue_;
  StartModel start_;
  ParameterSnapshot snapshot_;
  std::function<std::int64_t(std::int64_t)> length_;
};

}  // namespace

double StagePlan::flops() const {
  double sum = 0;
  for (const ProfileRow& row : work) sum += row.flops;
  return sum;
}

RunPlan plan_run(const Options& options, Dataset& data, const PlanFor& what) { return Walk(options, data, what)(); }

}  // namespace lc
