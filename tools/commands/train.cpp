// langcell train: vocabulary, tokens and both stages in one command, for a first model on one's own cells.
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "models/langcell/manifest.h"
#include "tools/anndata/writer.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/tokenize.h"
#include "tools/commands/vocab.h"
#include "tools/recipe.h"
#include "tools/report/run_report.h"
#include "train/pretrain.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

struct Flags {
  Common common;
  CountsFlags counts;
  fs::path input, texts, genes, out, run;
  std::string label_key, preset = "small";
  std::vector<std::string> set;
  int steps = 0;
  bool allow_missing = false, overwrite = false;
};

// The run folder of a command that fails before training begins is not left behind.
class NewFolder {
 public:
  explicit NewFolder(fs::path path) : path_(std::move(path)) {
    std::error_code failed;
    fs::remove_all(path_, failed);  // of an earlier training, and --overwrite was given: see require_ours
    fs::create_directories(path_, failed);
    if (failed)
      throw ResourceError(fmt::format("{}: cannot create the run folder: {}; choose another --run", path_.string(), failed.message()));
  }
  ~NewFolder() {
    std::error_code ignored;
    if (!fs::exists(path_ / "run" / "config.resolved.toml", ignored)) fs::remove_all(path_, ignored);
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

 private:
  fs::path path_;
};

// --overwrite replaces what this program wrote, never a folder of something else.
void require_ours(const fs::path& folder, const fs::path& sign, const char* option) {
  std::error_code failed;
  if (!fs::exists(folder, failed) || (fs::is_directory(folder, failed) && fs::is_empty(folder, failed)) ||
      fs::exists(folder / sign, failed))
    return;
  throw UsageError(fmt::format("{}: is not what an earlier training left ({} is missing), so it is not replaced; choose another {}",
                               folder.string(), sign.string(), option));
}

void run_train(const Flags& f) {
  begin(f.common);
  queue_of(f.common);
  std::error_code unknown;
  if (fs::exists(f.out, unknown) && !f.overwrite)
    throw UsageError(fmt::format("{}: exists already; choose another --out or add --overwrite", f.out.string()));
  const auto tell = [&](const std::string& line) { say(f.common, line); };
  const Texts texts = Texts::read(f.texts);
  const fs::path work = f.run.empty() ? fs::path(f.out.string() + ".run") : f.run;
  if (fs::exists(work, unknown) && !fs::is_empty(work, unknown) && !f.overwrite)
    throw UsageError(fmt::format(
        "{}: is not empty; continue it with 'langcell pretrain --resume', choose another --run, or add --overwrite", work.string()));
  require_ours(f.out, kManifestName, "--out");
  require_ours(work, "corpus.h5", "--run");
  [[maybe_unused]] const Frame readable(Hdf5::open(f.input).at("obs"));  // a name that is wrong is said before anything is replaced
  const NewFolder folder(work);
  TokenizeOptions tokens;
  tokens.inputs = {f.input}, tokens.out = work / "corpus.h5", tokens.texts = texts, tokens.label_key = f.label_key,
  tokens.low_coverage = f.counts.low_coverage();
  tokens.missing = f.allow_missing ? MissingLabels::keep : MissingLabels::refuse, tokens.say = tell;
  if (f.genes.empty()) {
    tell("vocabulary: medians of the non-zero counts of every gene");
    tokens.genes = gene_vocabulary_of(tokens.inputs, counts_options(f.counts), tell);
  } else {
    tokens.genes = GeneVocabulary::read(f.genes);
  }
  tokens.counts = counts_options(f.counts, tokens.genes);
  const Funnel funnel = tokenize(tokens);
  tell(funnel_table(funnel));

  std::vector<std::string> set = {fmt::format("model.preset={}", nlohmann::json(f.preset).dump()),
                                  fmt::format("train.seed={}", f.common.seed), "checkpoint.every=250",
                                  fmt::format("data.corpus=[{}]", nlohmann::json(tokens.out.string()).dump())};
  const int stage1_steps = f.steps * 3 / 20;  // as in the recipe
  if (f.steps > 0)
    set.push_back(fmt::format("stage1.steps={}", stage1_steps)), set.push_back(fmt::format("stage2.steps={}", f.steps - stage1_steps));
  if (f.common.precision != "auto") set.push_back("train.precision=\"" + f.common.precision + "\"");
  if (f.common.device != "auto") set.push_back("train.device=\"" + f.common.device + "\"");
  set.insert(set.end(), f.set.begin(), f.set.end());
  PretrainSetup setup;
  setup.options = parse_options(kRecipe, set, "langcell train"), setup.run = work / "run", setup.say = tell, setup.warn = warn;
  if (f.common.quiet) setup.progress = Progress::Show::nothing;
  const auto alone = comm_alone();
  const PretrainOutcome outcome = pretrain(setup, *alone);
  report::write_run_report(setup.run, setup.run / "report.html");
  AtomicFolder model(f.out, f.overwrite ? Existing::replace : Existing::refuse);
  fs::copy(outcome.model, model.partial_path(), fs::copy_options::recursive);
  model.commit();
  if (f.common.json)
    fmt::print(
        "{}\n",
        nlohmann::ordered_json{{"model", f.out.string()}, {"cells", funnel.kept}, {"steps", outcome.steps}, {"seconds", outcome.seconds}}
            .dump());
  else
    fmt::print("model: {} ({} cells, {} steps in {:.0f} s; report: {})\n", f.out.string(), funnel.kept, outcome.steps, outcome.seconds,
               (setup.run / "report.html").string());
  end(f.common);
}

}  // namespace

void register_train(CLI::App& program) {
  CLI::App* c = add_command(program, "train", "counts and texts in, a model trained from nothing out",
                            "langcell train cells.h5ad --texts texts.json --label-key cell_type --out model");
  const auto f = std::make_shared<Flags>();
  c->add_option("IN", f->input, "cells with labels (.h5ad)")->required();
  c->add_option("--texts", f->texts, "label to text (JSON)")->required()->type_name("T.json");
  c->add_option("--label-key", f->label_key, "the column of obs that holds the labels")->required()->type_name("KEY");
  c->add_option("--out", f->out, "the model folder to write")->required()->type_name("MODEL");
  c->add_option("--genes", f->genes, "a vocabulary (genes.tsv); default: built from IN")->type_name("G.tsv");
  c->add_option("--preset", f->preset, "sizes of the model: tiny, small, langcell")->capture_default_str();
  c->add_option("--steps", f->steps, "optimiser steps, 15 in 100 of them in stage 1; 0: the recipe's, 150 + 850")
      ->check(CLI::Range(0, 100000000))
      ->capture_default_str();
  c->add_option("--run", f->run, "where corpus, log and checkpoints go; default: MODEL.run")->type_name("DIR");
  c->add_option("--set", f->set, "override a key of the configuration")->type_name("key=value")->allow_extra_args(false);
  c->add_flag("--allow-missing", f->allow_missing, "cells whose label has no text stay, without one");
  c->add_flag("--overwrite", f->overwrite, "replace an existing model and run folder");
  add_counts_flags(*c, f->counts);
  add_common_options(*c, f->common);
  c->callback([f] { run_train(*f); });
}

}  // namespace lc
