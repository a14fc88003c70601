// langcell pretrain: stages 1 and 2 from a configuration and corpora to RUN/model.
#include "train/pretrain.h"

#include <fmt/format.h>
#include <omp.h>

#include <cstdlib>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "engine/launch.h"
#include "engine/memory.h"
#include "tools/commands/command.h"
#include "tools/report/run_report.h"
#include "train/exits.h"

namespace lc {
namespace {

struct Flags {
  Common common;
  std::filesystem::path config, run;
  std::vector<std::string> set;
  bool resume = false, seed_given = false;
};

// A rank that fails takes the others with it: they would wait for it for ever. A stop on request is all ranks' own.
PretrainOutcome pretrain_on(std::unique_ptr<Communicator> ranks, const PretrainSetup& setup) {
  if (ranks->size() == 1) return pretrain(setup, *ranks);
  const int rank = ranks->rank();
  const auto leave = [&](int code, const std::string& reason) {
    if (code != UsageError("").exit_code()) record_exit(setup.run, {rank, code, reason});
    fmt::print(stderr, "langcell: rank {}: error: {}\n", rank, printable(reason));
    ranks->abort(code);
  };
  try {
    require_one_kind_of_device(*ranks, *setup.queue);
    if (setup.queue->device == Device::cpu) return pretrain(setup, *ranks);
    const std::unique_ptr<Communicator> gpus = comm_nccl(*ranks, {*setup.queue});
    return pretrain(setup, *gpus);
  } catch (const Stopped& e) {
    record_exit(setup.run, {rank, e.exit_code(), e.what()});
    ranks.reset();  // all ranks are here: MPI ends in order
    throw;
  } catch (const Error& e) {
    leave(e.exit_code(), e.what());
    throw;
  } catch (const std::bad_alloc&) {
    leave(5, "out of memory; use a smaller batch_size, or fewer ranks on this machine");
    throw;
  } catch (const std::exception& e) {
    leave(70, e.what());
    throw;
  }
}

void run_pretrain(const Flags& f) {
  PretrainSetup setup;
  setup.options = f.config.empty() ? parse_options("", f.set) : read_options(f.config, f.set);
  if (f.common.device != "auto") setup.options.train.device = f.common.device;
  if (f.common.precision != "auto") setup.options.train.precision = f.common.precision;
  if (f.seed_given) setup.options.train.seed = static_cast<std::int64_t>(f.common.seed);
  if (f.common.threads > 0) setup.options.train.threads = f.common.threads;
  if (launcher(std::getenv) == Launcher::torchrun) queue_of_rank(setup.options.train.device, std::getenv);  // before they meet for nothing
  auto ranks = launched_ranks(std::getenv);
  Common common = f.common;
  const int rank = ranks->rank();
  if (rank != 0) common.quiet = true;
  common.device = setup.options.train.device, common.threads = static_cast<int>(setup.options.train.threads);
  if (common.threads == 0 && ranks->size() > 1) common.threads = threads_of_a_rank(std::getenv, omp_get_num_procs());
  begin(common);
  if (ranks->size() == 1) queue_of(common);
  setup.run = f.run, setup.resume = f.resume ? Resume::yes : Resume::no;
  setup.say = [&](const std::string& line) { say(common, line); };
  setup.warn = [rank](const std::string& line) {
    if (rank == 0) warn(line);
  };
  if (common.quiet) setup.progress = Progress::Show::nothing;
  if (ranks->size() > 1) setup.queue = queue_of_rank(setup.options.train.device, std::getenv);
  const PretrainOutcome outcome = pretrain_on(std::move(ranks), setup);
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

}  // namespace

void register_pretrain(CLI::App& program) {
  CLI::App* c = add_command(program, "pretrain", "pre-train a cell and a text encoder on corpora",
                            "langcell pretrain --config run.toml --run runs/first --set train.batch_size=64");
  const auto f = std::make_shared<Flags>();
  c->add_option("--config", f->config, "configuration (TOML); every key has a default")->type_name("F.toml");
  c->add_option("--run", f->run, "the run folder: log, checkpoints, model, report")->required()->type_name("DIR");
  c->add_option("--set", f->set, "override a key")->type_name("key=value")->allow_extra_args(false);
  c->add_flag("--resume", f->resume, "continue from the newest checkpoint; in an empty folder start");
  add_common_options(*c, f->common);
  c->callback([f, c] {
    f->seed_given = c->count("--seed") > 0;
    run_pretrain(*f);
  });
}

}  // namespace lc
