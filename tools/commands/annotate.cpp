// langcell annotate: zero-shot labels into a copy of the input.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/build.h"
#include "engine/errors.h"
#include "tools/anndata/writer.h"
#include "tools/commands/cell_run.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/results.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

struct Flags {
  Common common;
  CountsFlags counts;
  fs::path input, model, texts, out;
  std::string prefix = "langcell", score = "published";
  float alpha = 0.1f;
  int top_k = 0;
  bool overwrite = false;
};

const std::vector<std::string>& columns() {
  static const std::vector<std::string> names = {"label",   "label_final", "score",      "margin", "similarity",      "match",
                                                 "entropy", "second",      "unassigned", "reason", "ontology_term_id"};
  return names;
}

Categorical categorical(const std::vector<std::int32_t>& codes, const std::vector<std::string>& categories) {
  return {codes, categories, Ordered::no};
}

nlohmann::ordered_json facts(const Flags& f, const LoadedModel& model, const Texts& texts, const CellRun& run) {
  nlohmann::ordered_json described = nlohmann::ordered_json::object();
  for (std::size_t i = 0; i < texts.labels.size(); ++i) {
    if (texts.labels[i].texts.size() == 1)
      described[std::to_string(i)] = texts.labels[i].texts.front();
    else
      described[std::to_string(i)] = texts.labels[i].texts;
  }
  std::vector<std::string> labels;
  for (const LabelTexts& l : texts.labels) labels.push_back(l.label);
  return {{"version", build::kVersion},
          {"model_hash", model.hash},
          {"alpha", f.alpha},
          {"score", f.score},
          {"top_k", f.top_k},
          {"labels", labels},
          {"texts", described},
          {"counts", run.counts_source},
          {"id_match", run.figures.id_match},
          {"counts_known", run.figures.counts_known},
          {"breadth", run.figures.breadth},
          {"calibration", "none: a cell is unassigned when it has no vocabulary gene or no match probability reaches 0.5"},
          {"score_note", "a score is comparable only within one list of texts"}};
}

void write(Results& out, const Flags& f, const LoadedModel& model, const Texts& texts, const CellRun& run, const Labels& labels) {
  std::vector<std::string> names;
  for (const LabelTexts& l : texts.labels) names.push_back(l.label);
  const auto key = [&](const std::string& column) { return f.prefix + "_" + column; };
  std::vector<std::string> with_unassigned = names;
  std::vector<std::int32_t> final_codes = labels.final;
  const auto at = std::find(with_unassigned.begin(), with_unassigned.end(), "unassigned");
  const auto unassigned = static_cast<std::int32_t>(at - with_unassigned.begin());
  if (at == with_unassigned.end()) with_unassigned.push_back("unassigned");
  std::vector<H5Bool> is_unassigned;
  for (auto& code : final_codes) {
    is_unassigned.push_back(code < 0 ? H5Bool::yes : H5Bool::no);
    if (code < 0) code = unassigned;
  }
  out.obs(key("label"), categorical(labels.label, names));
  out.obs(key("label_final"), categorical(final_codes, with_unassigned));
  out.obs(key("score"), labels.score);
  out.obs(key("margin"), labels.margin);
  out.obs(key("similarity"), labels.similarity);
  out.obs(key("match"), labels.match);
  out.obs(key("entropy"), labels.entropy);
  out.obs(key("second"), categorical(labels.second, names));
  out.obs(key("unassigned"), std::span<const H5Bool>(is_unassigned));
  out.obs(key("reason"), categorical_of(labels.reason));
  std::vector<std::string> terms;
  for (const LabelTexts& l : texts.labels) terms.push_back(l.ontology_id);
  const bool stale =
      !is_tenx(f.input) && !keys_present(f.input, std::vector<std::string>{"obs/" + key("ontology_term_id")}).empty();  // of other texts
  if (stale || std::any_of(terms.begin(), terms.end(), [](const std::string& t) { return !t.empty(); })) {
    std::vector<std::string> of_cell;
    for (const std::int32_t l : labels.label) of_cell.push_back(l < 0 ? "" : terms[l]);
    out.obs(key("ontology_term_id"), categorical_of(of_cell));
  }
  std::vector<float> scores = run.scores.score;
  const auto width = static_cast<std::size_t>(run.scores.labels);
  for (std::size_t c = 0; c < run.has_genes.size(); ++c) {
    if (!run.has_genes[c])
      std::fill_n(scores.begin() + static_cast<std::ptrdiff_t>(c * width), width, std::numeric_limits<float>::quiet_NaN());
  }
  out.obsm("X_" + f.prefix, run.scores.z, static_cast<std::uint64_t>(run.scores.projection));
  out.obsm(f.prefix + "_scores", scores, width);
  out.uns(f.prefix, facts(f, model, texts, run));
  out.commit();
}

void summarise(const Flags& f, const Texts& texts, const Labels& labels) {
  std::vector<std::size_t> count(texts.labels.size(), 0), sure(texts.labels.size(), 0);
  std::size_t unassigned = 0;
  for (std::size_t c = 0; c < labels.label.size(); ++c) {
    if (labels.label[c] >= 0) ++count[labels.label[c]];
    if (labels.final[c] >= 0)
      ++sure[labels.final[c]];
    else
      ++unassigned;
  }
  if (f.common.json) {
    nlohmann::ordered_json per_label = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < count.size(); ++i)
      per_label.push_back({{"label", texts.labels[i].label}, {"cells", count[i]}, {"assigned", sure[i]}});
    fmt::print(
        "{}\n",
        nlohmann::ordered_json{{"out", f.out.string()}, {"cells", labels.label.size()}, {"unassigned", unassigned}, {"labels", per_label}}
            .dump());
    return;
  }
  fmt::print("{:<32} {:>8} {:>9}\n", "label", "cells", "assigned");
  for (std::size_t i = 0; i < count.size(); ++i) fmt::print("{:<32} {:>8} {:>9}\n", texts.labels[i].label, count[i], sure[i]);
  fmt::print(
      "{:<32} {:>8} {:>9}\nwritten: {} (obs/{}_label: the best text; obs/{}_label_final: 'unassigned' where none fits; obsm/X_{}; "
      "uncalibrated)\n",
      "unassigned", "", unassigned, f.out.string(), f.prefix, f.prefix, f.prefix);
  if (2 * unassigned > labels.label.size())
    warn(fmt::format("no text fits {} of {} cells: the model may be trained too little for them, or the texts may be of other cells",
                     unassigned, labels.label.size()));
}

void run_annotate(const Flags& f) {
  begin(f.common);
  if (f.prefix.empty() || f.prefix.find('/') != std::string::npos)
    throw UsageError(fmt::format("--prefix: wanted a name without '/', got '{}'", f.prefix));
  const ResultsSetup results{f.input, f.out, f.prefix, f.overwrite ? Existing::replace : Existing::refuse};
  std::vector<std::string> keys = {"obsm/X_" + f.prefix, "obsm/" + f.prefix + "_scores", "uns/" + f.prefix};
  for (const std::string& column : columns()) keys.push_back("obs/" + f.prefix + "_" + column);
  require_results_can_be_written(results, keys);
  const Texts texts = Texts::read(f.texts);
  const LoadedModel model = load_model(f.model, {.storage = precision_of(f.common, Work::inference), .queue = queue_of(f.common)});
  CellRunOptions options;
  options.low_coverage = f.counts.low_coverage(), options.texts = &texts;
  options.annotate.alpha = f.alpha, options.annotate.top_k = f.top_k,
  options.annotate.temperature = static_cast<float>(model.facts.temperature);
  options.annotate.score = f.score == "logit" ? ScoreKind::logit : ScoreKind::published;
  options.say = [&](const std::string& line) { say(f.common, line); };
  const CountMatrix counts = open_counts(f.input, counts_options(f.counts, model.facts.genes));
  const std::unique_ptr<Results> out = open_results(results, counts);  // what cannot be written is said now
  const CellRun run = run_cells(model, counts, options);
  const Labels labels = labels_of(run);
  write(*out, f, model, texts, run, labels);
  summarise(f, texts, labels);
  end(f.common);
}

}  // namespace

void register_annotate(CLI::App& program) {
  CLI::App* c =
      add_command(program, "annotate", "label cells by texts the model may never have seen (scores compare only within one list of texts)",
                  "langcell annotate new.h5ad --model model --texts types.json --out labelled.h5ad");
  const auto f = std::make_shared<Flags>();
  c->add_option("IN", f->input, "cells (.h5ad, 10x .h5 or MTX folder)")->required();
  c->add_option("--model", f->model, "a model folder")->required()->type_name("DIR");
  c->add_option("--texts", f->texts, "label to text, or list of texts (JSON)")->required()->type_name("T.json");
  c->add_option("--out", f->out, "the input plus results (.h5ad), or results alone (.tsv, .tsv.gz, .npz)")->required()->type_name("OUT");
  c->add_option("--alpha", f->alpha, "weight of similarity; 1 - alpha that of matching")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  c->add_option("--score", f->score, "published: softmax over match probabilities; logit: over match logits")
      ->check(CLI::IsMember({"published", "logit"}))
      ->capture_default_str();
  c->add_option("--top-k", f->top_k, "match the K most similar texts only; 0: all")->check(CLI::Range(0, 1000000))->capture_default_str();
  c->add_option("--prefix", f->prefix, "names of the results: PREFIX_label, X_PREFIX, uns/PREFIX")->capture_default_str();
  c->add_flag("--overwrite", f->overwrite, "replace an existing output and existing result keys");
  add_counts_flags(*c, f->counts);
  add_common_options(*c, f->common);
  c->callback([f] { run_annotate(*f); });
}

}  // namespace lc
