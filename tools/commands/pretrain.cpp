// langcell pretrain: stages 1 and 2 from a configuration and corpora to RUN/model.
#include "train/pretrain.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tools/commands/command.h"
#include "tools/report/run_report.h"

namespace lc {
namespace {

struct Flags {
  Common common;
  std::filesystem::path config, run;
  std::vector<std::string> set;
  bool resume = false, seed_given = false;
};

void run_pretrain(const Flags& f) {
  PretrainSetup setup;
  setup.options = f.config.empty() ? parse_options("", f.set) : read_options(f.config, f.set);
  if (f.common.device != "auto") setup.options.train.device = f.common.device;
  if (f.common.precision != "auto") setup.options.train.precision = f.common.precision;
  if (f.seed_given) setup.options.train.seed = static_cast<std::int64_t>(f.common.seed);
  if (f.common.threads > 0) setup.options.train.threads = f.common.threads;
  Common common = f.common;
  common.device = setup.options.train.device, common.threads = static_cast<int>(setup.options.train.threads);
  begin(common);
  queue_of(common);
  setup.run = f.run, setup.resume = f.resume ? Resume::yes : Resume::no;
  setup.say = [&](const std::string& line) { say(common, line); };
  setup.warn = warn;
  if (common.quiet) setup.progress = Progress::Show::nothing;
  const auto alone = comm_alone();
  const PretrainOutcome outcome = pretrain(setup, *alone);
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
