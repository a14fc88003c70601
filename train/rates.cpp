#include "train/rates.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>

#include "engine/comm.h"
#include "engine/errors.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "train/order.h"
#include "train/stage.h"
#include "train/start_model.h"
#include "train/step.h"

namespace lc {
namespace {

// Every n-th of a batch, which is sorted by length: the same lengths, fewer of each.
Samples spread(const Samples& batch, std::int64_t count) {
  Samples some;
  const auto size = std::ssize(batch);
  for (std::int64_t i = 0; i < count; ++i) some.push_back(batch[static_cast<std::size_t>((2 * i + 1) * size / (2 * count))]);
  return some;
}

// Small steps of one stage.
class ShortRun {
 public:
  ShortRun(const Options& options, Dataset& data, int stage, StartModel& start)
      : options_(options),
        alone_(comm_alone()),
        step_(*start.model, data, *alone_, step_rule(options, stage, start.model->config().max_cell_tokens)) {
    freeze_for_stage(options, stage, {start.cell_loaded, start.text_loaded}, start.model->parameters());
    const int longest = start.model->config().max_cell_tokens;
    SampleOrder order(CellSet(data.cells(), [](std::int64_t) { return true; }),
                      {static_cast<std::uint64_t>(options.train.seed), static_cast<std::uint32_t>(stage), options.train.batch_size,
                       [&data, longest](std::int64_t c) { return data.length(c, longest); }});
    batch_ = order.batch(order.batches_per_epoch() / 2);
  }

  Rates operator()(double wanted_seconds) {
    constexpr std::int64_t kFewest = 4;
    const std::int64_t most = std::max<std::int64_t>(2, std::ssize(batch_) / options_.train.accumulate);
    const double first = run(std::min(kFewest, most)).seconds, again = run(std::min(kFewest, most)).seconds;
    const double per_sample = std::min(first, again) / static_cast<double>(kFewest);
    const auto count = std::clamp(static_cast<std::int64_t>(wanted_seconds / 5 / per_sample), std::min(kFewest, most), most);
    run(count);  // memory is there after it
    std::vector<Timed> runs;
    for (int i = 0; i < 4; ++i) runs.push_back(run(count));
    const auto faster = [](const Timed& a, const Timed& b) { return a.seconds < b.seconds; };
    return rates_of(*std::min_element(runs.begin(), runs.end(), faster));  // the least disturbed
  }

 private:
  struct Timed {
    double seconds = 0, tokens = 0;
    std::vector<ProfileRow> work;
  };
  Timed run(std::int64_t count) {
    reset_profile();
    const double begin = seconds_now();
    const StepResult r = step_.run(number_++, {spread(batch_, count)}, 0);
    return {seconds_now() - begin, static_cast<double>(r.tokens), profile_rows()};
  }
  static Rates rates_of(const Timed& run) {
    Rates rates;
    double in_operators = 0;
    for (const ProfileRow& row : run.work) {
      Rate& rate = rates.of[{row.name, row.direction}];
      (row.flops > 0 ? rate.flops_per_s : rate.bytes_per_s) = (row.flops > 0 ? row.flops : row.bytes) / row.seconds;
      in_operators += row.seconds;
    }
    rates.per_token_s = std::max(0.0, run.seconds - in_operators) / run.tokens;
    return rates;
  }
  const Options& options_;
  std::unique_ptr<Communicator> alone_;
  Step step_;
  Samples batch_;
  std::uint32_t number_ = 0;
};

}  // namespace

double Rate::seconds(const ProfileRow& work) const {
  const double computing = flops_per_s > 0 ? work.flops / flops_per_s : 0, moving = bytes_per_s > 0 ? work.bytes / bytes_per_s : 0;
  return std::max(computing + moving, call_s * work.calls);
}

Machine measure_machine(const Options& options, Dataset& data, const Queue& queue, double wanted_seconds) {
  const auto quiet = [](const std::string&) {};
  const Inspection before = inspection();
  Machine machine;
  StartModel start = start_model(options, data, queue, quiet, quiet);
  inspection() = {.profile = true, .check_finite = false};
  for (const int stage : {1, 2}) {
    if (options.stage(stage).runs()) machine.stage[stage - 1] = ShortRun(options, data, stage, start)(wanted_seconds);
  }
  inspection() = before;
  reset_profile();
  const bool cpu = queue.device == Device::cpu;
  machine.name = cpu ? fmt::format("this machine: {}, {} threads", instruction_set(), omp_get_max_threads()) : name_of(queue);
  machine.source = "measured now by a few small steps";
  if (cpu) machine.memory_bytes = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  machine.link_bytes_per_s = 1.25e9, machine.link_source = "assumed: Ethernet of 10 Gbit/s";
  return machine;
}

StageTime time_of(const StagePlan& stage, const Machine& machine) {
  const Rates& rates = machine.stage[stage.stage - 1];
  StageTime time;
  for (const ProfileRow& row : stage.work) {
    const auto rate = rates.of.find({row.name, row.direction});
    ProfileRow& timed = time.operators.emplace_back(row);
    timed.seconds = rate == rates.of.end() ? 0 : rate->second.seconds(row);
    time.compute_s += timed.seconds;
  }
  time.compute_s += rates.per_token_s * stage.tokens;
  if (machine.link_bytes_per_s > 0)
    time.gradients_s = stage.gradient_bytes / machine.link_bytes_per_s, time.gather_s = stage.gather_bytes / machine.link_bytes_per_s;
  return time;
}

}  // namespace lc
