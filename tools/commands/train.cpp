// langcell train: vocabulary, tokens and both stages in one command, for a first model on one's own cells.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "engine/errors.h"
#include "engine/folder_lock.h"
#include "models/langcell/config.h"
#include "models/langcell/manifest.h"
#include "tools/anndata/writer.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/outputs.h"
#include "tools/commands/tokenize.h"
#include "tools/commands/vocab.h"
#include "tools/recipe.h"
#include "tools/report/run_report.h"
#include "train/pretrain.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

const fs::path kSign = fs::path("run") / "config.resolved.toml";  // of a training that began

struct TrainFlags {
  Common common;
  CountsFlags counts;
  fs::path input, texts, genes, out, run;
  std::string label_key, preset = "small";
  std::vector<std::string> set;
  int steps = 0;
  bool allow_missing = false, overwrite = false, resume = false;
};

// Where the corpus and the run folder go. What an earlier training left there is removed (--overwrite was given: see require_ours), and
// what this one made if it fails before training begins; other files that lie there are nobody's business here.
class NewFolder {
 public:
  explicit NewFolder(fs::path path) : path_(std::move(path)) {
    if (std::error_code absent; fs::is_directory(path_ / "run", absent)) const FolderLock at_work(path_ / "run");
    std::error_code failed;
    remove();
    fs::create_directories(path_, failed);
    if (failed)
      throw ResourceError(fmt::format("{}: cannot create the run folder: {}; choose another --run", path_.string(), failed.message()));
  }
  ~NewFolder() {
    std::error_code ignored;
    if (fs::exists(path_ / kSign, ignored)) return;
    remove();
    fs::remove(path_, ignored);  // when nothing else is in it
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

 private:
  void remove() const {
    std::error_code ignored;
    fs::remove_all(path_ / "run", ignored), fs::remove(path_ / "corpus.h5", ignored);
    remove_leftovers(path_, "corpus.h5");
  }
  fs::path path_;
};

// The recipe with what the options say; a mistake in them is found before a cell is read.
Options options_of(const TrainFlags& f, const fs::path& corpus) {
  std::vector<std::string> set = {fmt::format("model.preset={}", nlohmann::json(f.preset).dump()),
                                  fmt::format("train.seed={}", f.common.seed), "checkpoint.every=250",
                                  fmt::format("data.corpus=[{}]", nlohmann::json(fs::absolute(corpus).string()).dump())};
  const int stage1_steps = f.steps * 3 / 20;  // as in the recipe
  if (f.steps > 0)
    set.push_back(fmt::format("stage1.steps={}", stage1_steps)), set.push_back(fmt::format("stage2.steps={}", f.steps - stage1_steps));
  if (f.common.precision != "auto") set.push_back("train.precision=\"" + f.common.precision + "\"");
  if (f.common.device != "auto") set.push_back("train.device=\"" + f.common.device + "\"");
  set.insert(set.end(), f.set.begin(), f.set.end());
  const Options options = parse_options(kRecipe, set, "langcell train");
  (void)lc::preset(options.model.preset, 1, 1);
  return options;
}

bool only_a_corpus(const fs::path& work) {
  std::error_code failed;
  fs::directory_iterator entry(work, failed);
  return !failed && std::all_of(begin(entry), end(entry),
                                [](const fs::directory_entry& e) { return e.path().filename().string().starts_with("corpus.h5"); });
}

void require_outputs(const TrainFlags& f, const fs::path& work, bool goes_on) {
  std::error_code unknown;
  if (!goes_on) require_new(f.out, f.overwrite ? Overwrite::yes : Overwrite::no);
  const bool begun = only_a_corpus(work);  // killed before training began: there is nothing to go on with, and nothing to lose
  if (fs::exists(work, unknown) && !fs::is_empty(work, unknown) && !f.overwrite && !goes_on && !(begun && f.resume))
    throw UsageError(
        fmt::format("{}: is not empty; continue it with --resume, choose another --run, or replace it with --overwrite", work.string()));
  require_ours(f.out, kManifestName, "--out");
  if (!begun) require_ours(work, kSign, "--run");
  for (const fs::path& goes : {f.out, work / "run", work / "corpus.h5"})
    require_not_an_input(goes, std::vector<fs::path>{f.input, f.texts, f.genes});
}

void make_corpus(const TrainFlags& f, const fs::path& corpus, std::optional<NewFolder>& folder) {
  const auto tell = [&](const std::string& line) { say(f.common, line); };
  TokenizeOptions tokens;
  tokens.inputs = {f.input}, tokens.out = corpus, tokens.texts = Texts::read(f.texts), tokens.label_key = f.label_key,
  tokens.low_coverage = f.counts.low_coverage();
  tokens.missing = f.allow_missing ? MissingLabels::keep : MissingLabels::refuse, tokens.say = tell;
  check_labels(tokens);
  folder.emplace(corpus.parent_path());
  if (f.genes.empty()) {
    tell("vocabulary: medians of the non-zero counts of every gene");
    tokens.genes = gene_vocabulary_of(tokens.inputs, counts_options(f.counts), tell);
  } else {
    tokens.genes = GeneVocabulary::read(f.genes);
  }
  tokens.counts = counts_options(f.counts, tokens.genes);
  const Funnel funnel = tokenize(tokens);
  std::istringstream table(funnel_table(funnel));
  for (std::string line; std::getline(table, line);) tell(line);
  for (const auto& [what, count] : funnel.noted) {
    if (what == kWithoutText && count > 0)
      warn(fmt::format("{} of {} cells have no text and teach the model about genes alone", count, funnel.kept));
  }
}

void run_train(const TrainFlags& f) {
  begin(f.common);
  (void)queue_of(f.common);  // a device that is not there is said before anything is replaced
  const fs::path work = f.run.empty() ? fs::path(f.out.string() + ".run") : f.run, corpus = work / "corpus.h5";
  std::error_code unknown;
  const bool goes_on = f.resume && fs::exists(work / kSign, unknown) && fs::exists(corpus, unknown);
  require_outputs(f, work, goes_on);
  PretrainSetup setup;
  setup.options = options_of(f, corpus);
  std::optional<NewFolder> folder;
  if (!goes_on) make_corpus(f, corpus, folder);
  setup.run = work / "run", setup.resume = f.resume ? Resume::yes : Resume::no, setup.warn = warn;
  setup.say = [&](const std::string& line) { say(f.common, line); };
  if (f.common.quiet) setup.progress = Progress::Show::nothing;
  const auto alone = comm_alone();
  const PretrainOutcome outcome = pretrain(setup, *alone);
  report::write_run_report(setup.run, setup.run / "report.html");
  AtomicFolder model(f.out, f.overwrite || goes_on ? Existing::replace : Existing::refuse);
  fs::copy(outcome.model, model.partial_path(), fs::copy_options::recursive);
  model.commit();
  const std::int64_t cells = static_cast<std::int64_t>(Corpus::open(corpus).cells());
  if (f.common.json)
    fmt::print(
        "{}\n",
        nlohmann::ordered_json{{"model", f.out.string()}, {"cells", cells}, {"steps", outcome.steps}, {"seconds", outcome.seconds}}.dump());
  else
    fmt::print("model: {} ({} cells, {} steps in {:.0f} s; report: {})\n", f.out.string(), cells, outcome.steps, outcome.seconds,
               (setup.run / "report.html").string());
  end(f.common);
}

}  // namespace

void register_train(Command program) {
  Command c = add_command(program, "train", "counts and texts in, a model trained from nothing out",
                          "langcell train cells.h5ad --texts texts.json --label-key cell_type --out model");
  const auto f = std::make_shared<TrainFlags>();
  c.add_option("IN", f->input, "cells with labels (.h5ad)").required();
  c.add_option("--texts", f->texts, "label to text (JSON)").required().type_name("T.json");
  c.add_option("--label-key", f->label_key, "the column of obs that holds the labels").required().type_name("KEY");
  c.add_option("--out", f->out, "the model folder to write").required().type_name("MODEL");
  c.add_option("--genes", f->genes, "a vocabulary (genes.tsv); default: built from IN").type_name("G.tsv");
  c.add_option("--preset", f->preset, "sizes of the model: tiny, small, langcell").capture_default_str();
  c.add_option("--steps", f->steps, "optimiser steps, 15 in 100 of them in stage 1; 0: the recipe's, 150 + 850")
      .range(0, 100000000)
      .capture_default_str();
  c.add_option("--run", f->run, "where corpus, log and checkpoints go; default: MODEL.run").type_name("DIR");
  c.add_option("--set", f->set, "override a key of the configuration").type_name("key=value").once_each();
  c.add_flag("--allow-missing", f->allow_missing, "cells whose label has no text stay, without one");
  c.add_flag("--resume", f->resume, "go on with a training that was stopped; starts it where there is none");
  c.add_flag("--overwrite", f->overwrite, "replace an existing model and run folder");
  add_counts_flags(c, f->counts);
  add_common_options(c, f->common);
  c.callback([f] { run_train(*f); });
}

}  // namespace lc
