// langcell annotate: zero-shot labels into a copy of the input.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/build.h"
#include "engine/errors.h"
#include "engine/memory.h"
#include "tools/anndata/writer.h"
#include "tools/commands/cell_run.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/results.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

struct AnnotateFlags {
  Common common;
  CountsFlags counts;
  fs::path input, model, texts, out;
  std::string prefix = "langcell", score = "published";
  float alpha = 0.1f;
  int top_k = 0;
  bool overwrite = false, dry_run = false;
};

const std::vector<std::string>& columns() {
  static const std::vector<std::string> names = {"label",   "label_final", "score",      "margin", "similarity",      "match",
                                                 "entropy", "second",      "unassigned", "reason", "ontology_term_id"};
  return names;
}

Categorical categorical(const std::vector<std::int32_t>& codes, const std::vector<std::string>& categories) {
  return {codes, categories, Ordered::no};
}
// Only the categories that occur, sorted, as pandas makes them of texts; "" is missing.
Categorical some_of(const std::vector<std::int32_t>& codes, const std::vector<std::string>& names) {
  std::vector<char> occurs(names.size(), 0);
  for (const std::int32_t code : codes)
    if (code >= 0) occurs[static_cast<std::size_t>(code)] = 1;
  Categorical out;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (occurs[i] && !names[i].empty()) out.categories.push_back(names[i]);
  std::sort(out.categories.begin(), out.categories.end());
  out.categories.erase(std::unique(out.categories.begin(), out.categories.end()), out.categories.end());
  std::vector<std::int32_t> number(names.size(), -1);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto at = std::lower_bound(out.categories.begin(), out.categories.end(), names[i]);
    if (at != out.categories.end() && *at == names[i]) number[i] = static_cast<std::int32_t>(at - out.categories.begin());
  }
  for (const std::int32_t code : codes) out.codes.push_back(code < 0 ? -1 : number[static_cast<std::size_t>(code)]);
  return out;
}

nlohmann::ordered_json facts(const AnnotateFlags& f, const LoadedModel& model, const Texts& texts, const CellRun& run,
                             const CountMatrix& counts) {
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
          {"counts", counts.source()},
          {"id_match", run.figures().id_match},
          {"counts_known", run.figures().counts_known},
          {"breadth", run.figures().breadth},
          {"calibration", "none: a cell is unassigned when it has no vocabulary gene or no match probability reaches 0.5"},
          {"score_note", "a score is comparable only within one list of texts"}};
}

template <class T, class F>
std::vector<T> column(const std::vector<CellLabel>& labels, F&& f) {
  std::vector<T> out;
  out.reserve(labels.size());
  for (const CellLabel& l : labels) out.push_back(static_cast<T>(f(l)));
  return out;
}

void write(Results& out, const AnnotateFlags& f, const nlohmann::ordered_json& about, const Texts& texts, const CellRun& run,
           const std::vector<CellLabel>& labels) {
  std::vector<std::string> names;
  for (const LabelTexts& l : texts.labels) names.push_back(l.label);
  const auto key = [&](const std::string& name) { return f.prefix + "_" + name; };
  const auto codes = [&](auto&& of) { return column<std::int32_t>(labels, of); };
  const auto floats = [&](const char* name, auto&& of) { out.obs(key(name), std::span<const float>(column<float>(labels, of))); };
  std::vector<std::string> with_unassigned = names;
  const auto at = std::find(with_unassigned.begin(), with_unassigned.end(), "unassigned");
  const auto unassigned = static_cast<std::int32_t>(at - with_unassigned.begin());
  if (at == with_unassigned.end()) with_unassigned.push_back("unassigned");
  out.obs(key("label"), categorical(codes([](const CellLabel& l) { return l.label; }), names));
  out.obs(key("label_final"), categorical(codes([&](const CellLabel& l) { return l.final < 0 ? unassigned : l.final; }), with_unassigned));
  floats("score", [](const CellLabel& l) { return l.score; });
  floats("margin", [](const CellLabel& l) { return l.margin; });
  floats("similarity", [](const CellLabel& l) { return l.similarity; });
  floats("match", [](const CellLabel& l) { return l.match; });
  floats("entropy", [](const CellLabel& l) { return l.entropy; });
  out.obs(key("second"), categorical(codes([](const CellLabel& l) { return l.second; }), names));
  const auto marks = column<H5Bool>(labels, [](const CellLabel& l) { return l.final < 0 ? H5Bool::yes : H5Bool::no; });
  out.obs(key("unassigned"), std::span<const H5Bool>(marks));
  out.obs(key("reason"), some_of(codes([](const CellLabel& l) { return static_cast<std::int32_t>(l.reason); }),
                                 {name_of(Reason::ok), name_of(Reason::no_genes), name_of(Reason::low_match)}));
  std::vector<std::string> terms;
  for (const LabelTexts& l : texts.labels) terms.push_back(l.ontology_id);
  const bool stale =
      !is_tenx(f.input) && !keys_present(f.input, std::vector<std::string>{"obs/" + key("ontology_term_id")}).empty();  // of other texts
  if (stale || std::any_of(terms.begin(), terms.end(), [](const std::string& t) { return !t.empty(); }))
    out.obs(key("ontology_term_id"), some_of(codes([](const CellLabel& l) { return l.label; }), terms));
  out.obsm("X_" + f.prefix, run.projection(), run.z());
  out.obsm(f.prefix + "_scores", names.size(), run.scores());
  out.uns(f.prefix, about);
  out.commit();
}

void summarise(const AnnotateFlags& f, const Texts& texts, const std::vector<CellLabel>& labels) {
  std::vector<std::size_t> count(texts.labels.size(), 0), sure(texts.labels.size(), 0);
  std::size_t unassigned = 0;
  for (const CellLabel& l : labels) {
    if (l.label >= 0) ++count[static_cast<std::size_t>(l.label)];
    if (l.final >= 0)
      ++sure[static_cast<std::size_t>(l.final)];
    else
      ++unassigned;
  }
  if (f.common.json) {
    nlohmann::ordered_json per_label = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < count.size(); ++i)
      per_label.push_back({{"label", texts.labels[i].label}, {"cells", count[i]}, {"assigned", sure[i]}});
    fmt::print("{}\n",
               nlohmann::ordered_json{{"out", f.out.string()}, {"cells", labels.size()}, {"unassigned", unassigned}, {"labels", per_label}}
                   .dump());
    return;
  }
  fmt::print("{:<32} {:>8} {:>9}\n", "label", "cells", "assigned");
  for (std::size_t i = 0; i < count.size(); ++i) fmt::print("{:<32} {:>8} {:>9}\n", texts.labels[i].label, count[i], sure[i]);
  fmt::print(
      "{:<32} {:>8} {:>9}\nwritten: {} (obs/{}_label: the best text; obs/{}_label_final: 'unassigned' where none fits; obsm/X_{}; "
      "uncalibrated)\n",
      "unassigned", "", unassigned, f.out.string(), f.prefix, f.prefix, f.prefix);
  if (2 * unassigned > labels.size())
    warn(fmt::format("no text fits {} of {} cells: the model may be trained too little for them, or the texts may be of other cells",
                     unassigned, labels.size()));
}

void run_annotate(const AnnotateFlags& f) {
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
  options.out = f.out, options.existing = results.existing, options.low_coverage = f.counts.low_coverage(), options.texts = &texts;
  options.only_finish = perhaps_finished(results);
  options.annotate.alpha = f.alpha, options.annotate.top_k = f.top_k,
  options.annotate.temperature = static_cast<float>(model.facts.temperature);
  options.annotate.score = f.score == "logit" ? ScoreKind::logit : ScoreKind::published;
  options.about = fmt::format("annotate {} {} {} {} {} {} {}", f.counts.min_counts, f.alpha, f.top_k, f.score,
                              name_of(precision_of(f.common, Work::inference)), name_of(queue_of(f.common)), instruction_set());
  options.say = [&](const std::string& line) { say(f.common, line); };
  const CountMatrix counts = open_counts(f.input, counts_options(f.counts, model.facts.genes));
  CellRun run(model, counts, options);
  if (f.dry_run) {
    run.estimate();
    return end(f.common);
  }
  run.run();
  const std::vector<CellLabel> labels = run.labels();
  const ResultsSetup where = where_to_write(results);
  write(*open_results(where, counts), f, facts(f, model, texts, run, counts), texts, run, labels);
  require_finished(where.out, results);
  run.finish();
  summarise(f, texts, labels);
  end(f.common);
}

}  // namespace

void register_annotate(Command program) {
  Command c =
      add_command(program, "annotate", "label cells by texts the model may never have seen (scores compare only within one list of texts)",
                  "langcell annotate new.h5ad --model model --texts types.json --out labelled.h5ad");
  const auto f = std::make_shared<AnnotateFlags>();
  c.add_option("IN", f->input, "cells (.h5ad, 10x .h5 or MTX folder)").required();
  c.add_option("--model", f->model, "a model folder").required().type_name("DIR");
  c.add_option("--texts", f->texts, "label to text, or list of texts (JSON)").required().type_name("T.json");
  c.add_option("--out", f->out, "the input plus results (.h5ad), or results alone (.tsv, .tsv.gz, .npz)").required().type_name("OUT");
  c.add_option("--alpha", f->alpha, "weight of similarity; 1 - alpha that of matching").range(0.0, 1.0).capture_default_str();
  c.add_option("--score", f->score, "published: softmax over match probabilities; logit: over match logits")
      .one_of({"published", "logit"})
      .capture_default_str();
  c.add_option("--top-k", f->top_k, "match the K most similar texts only; 0: all").range(0, 1000000).capture_default_str();
  c.add_option("--prefix", f->prefix, "names of the results: PREFIX_label, X_PREFIX, uns/PREFIX").capture_default_str();
  c.add_flag("--overwrite", f->overwrite, "replace an existing output and existing result keys");
  c.add_flag("--dry-run", f->dry_run, "say what would be done and how long it would take; write nothing");
  add_counts_flags(c, f->counts);
  add_common_options(c, f->common);
  c.callback([f] { run_annotate(*f); });
}

}  // namespace lc
