// langcell pretrain: stages 1 and 2 from a configuration and corpora to RUN/model.
#include "train/pretrain.h"

#include <fmt/format.h>
#include <omp.h>

#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "engine/folder_lock.h"
#include "engine/launch.h"
#include "engine/watch/watch.h"
#include "tools/commands/command.h"
#include "tools/report/run_report.h"
#include "train/exits.h"

namespace lc {
namespace {

struct PretrainFlags {
  Common common;
  std::filesystem::path config, run;
  std::vector<std::string> set;
  bool resume = false, seed_given = false;
};

Options options_of(const PretrainFlags& f) {
  Options o = f.config.empty() ? parse_options("", f.set) : read_options(f.config, f.set);
  if (f.common.device != "auto") o.train.device = f.common.device;
  if (f.common.precision != "auto") o.train.precision = f.common.precision;
  if (f.seed_given) o.train.seed = static_cast<std::int64_t>(f.common.seed);
  if (f.common.threads > 0) o.train.threads = f.common.threads;
  return o;
}

void run_here(const PretrainFlags& f, Communicator& ranks, const std::function<void(const Options&)>& configured) {
  PretrainSetup setup;
  setup.options = options_of(f);
  configured(setup.options);
  Common common = f.common;
  const int rank = ranks.rank();
  if (rank != 0) common.quiet = true;
  common.device = setup.options.train.device, common.threads = static_cast<int>(setup.options.train.threads);
  if (common.threads == 0 && ranks.size() > 1) common.threads = threads_of_a_rank(std::getenv, omp_get_num_procs());
  begin(common);
  if (ranks.size() == 1) {
    queue_of(common);
  } else {
    setup.queue = queue_of_rank(setup.options.train.device, std::getenv);
    require_one_kind_of_device(ranks, *setup.queue);
  }
  setup.run = f.run, setup.resume = f.resume ? Resume::yes : Resume::no;
  setup.say = [&](const std::string& line) { say(common, line); };
  setup.warn = [rank](const std::string& line) {
    if (rank == 0) warn(line);
  };
  if (common.quiet) setup.progress = Progress::Show::nothing;
  const bool on_gpus = setup.queue && setup.queue->device != Device::cpu;
  const double timeout = setup.options.ranks.timeout_s;  // what the watch allows a rank, NCCL is allowed too
  const double patience = timeout > 0 ? timeout : std::numeric_limits<double>::infinity();
  std::unique_ptr<Communicator> gpus = on_gpus ? comm_nccl(ranks, {*setup.queue, patience}) : nullptr;
  const PretrainOutcome outcome = pretrain(setup, gpus ? *gpus : ranks);
  gpus.reset();
  if (rank != 0) return;
  std::error_code unknown;
  if (outcome.steps > 0 || !std::filesystem::exists(f.run / "report.html", unknown)) report::write_run_report(f.run, f.run / "report.html");
  if (common.json)
    fmt::print("{}\n",
               nlohmann::ordered_json{{"model", outcome.model.string()}, {"steps", outcome.steps}, {"seconds", outcome.seconds}}.dump());
  else
    fmt::print("model: {} ({} steps in {:.0f} s; report: {})\n", outcome.model.string(), outcome.steps, outcome.seconds,
               (f.run / "report.html").string());
  end(common);
}

// Each rank writes why it ends, one says it. Wrong usage leaves the run folder as it is.
WatchSetup watch_setup(const PretrainFlags& f) {
  WatchSetup setup;
  setup.on_end = [&f](const RankEnd& end) {
    if (end.code != UsageError("").exit_code()) record_exit(f.run, {end.rank, end.code, end.reason, end.last});
    if (end.told == RankEnd::Told::here) fmt::print(stderr, "langcell: rank {}: error: {}\n", end.rank, printable(end.reason));
  };
  setup.warn = warn;
  return setup;
}

// A rank that fails takes the others with it: they would wait for it for ever. A stop on request is all ranks' own.
void run_watched(const PretrainFlags& f, std::unique_ptr<Communicator> several) {
  auto ranks = std::make_unique<Watched>(std::move(several), watch_setup(f));
  const int rank = ranks->rank();
  try {
    run_here(f, *ranks, [&](const Options& o) { ranks->watch().allow({o.ranks.silence_s, o.ranks.timeout_s}); });
  } catch (const Stopped& e) {
    record_exit(f.run, {rank, e.exit_code(), e.what(), {}});
    ranks.reset();  // all ranks are here: they end in order
    if (rank == 0) throw;
    throw Stopped("");
  } catch (...) {
    const Failure failure = failure_in_flight();
    ranks->watch().fail(failure.code, failure.line);
    throw;
  }
}

// Why it ended is written down for whoever finds it gone; not what was wrong with the command itself, nor into another process's run.
void run_alone(const PretrainFlags& f, Communicator& alone) {
  try {
    run_here(f, alone, [](const Options&) {});
  } catch (...) {
    const Failure failure = failure_in_flight();
    if (failure.code != UsageError("").exit_code() && !FolderLock::is_held(f.run)) record_exit(f.run, {0, failure.code, failure.line});
    throw;
  }
}

void run_pretrain(const PretrainFlags& f) {
  if (launcher(std::getenv) == Launcher::torchrun) queue_of_rank(options_of(f).train.device, std::getenv);  // before they meet for nothing
  auto ranks = launched_ranks(std::getenv);
  if (ranks->size() > 1) return run_watched(f, std::move(ranks));
  run_alone(f, *ranks);
}

}  // namespace

void register_pretrain(Command program) {
  Command c = add_command(program, "pretrain", "pre-train a cell and a text encoder on corpora",
                          "langcell pretrain --config run.toml --run runs/first --set train.batch_size=64");
  const auto f = std::make_shared<PretrainFlags>();
  c.add_option("--config", f->config, "configuration (TOML); every key has a default").type_name("F.toml");
  c.add_option("--run", f->run, "the run folder: log, checkpoints, model, report").required().type_name("DIR");
  c.add_option("--set", f->set, "override a key").type_name("key=value").once_each();
  c.add_flag("--resume", f->resume, "continue from the newest checkpoint; in an empty folder start");
  add_common_options(c, f->common);
  c.callback([f, c] {
    f->seed_given = c.given("--seed");
    run_pretrain(*f);
  });
}

}  // namespace lc
