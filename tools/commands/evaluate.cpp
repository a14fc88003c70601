// langcell evaluate annotation: how good the labels in a file are, and what simple methods reach on the same cells.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "models/langcell/data/texts.h"
#include "tools/commands/command.h"
#include "tools/commands/outputs.h"
#include "tools/evaluation/annotated_file.h"
#include "tools/evaluation/baselines.h"
#include "tools/evaluation/metrics.h"
#include "tools/report/annotated_parts.h"
#include "tools/report/html.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

struct EvaluateOptions {
  fs::path file, train, map, texts, report, metrics;
  std::string truth, prediction = "langcell_label", setting;
  std::optional<std::uint64_t> split_seed;
  bool overwrite = false;
  Common common;
};

struct Evaluation {
  Metrics langcell;
  std::optional<Metrics> majority, knn_pca, logistic_pca;
  size_t n_train = 0, n_test = 0;
};

std::vector<std::string> labels_of_texts(const fs::path& path) {
  std::vector<std::string> labels;
  for (const auto& entry : Texts::read(path).labels) labels.push_back(entry.label);
  return labels;
}

// The baselines see the cells of FILE; their labels are scored exactly as LangCell's are.
void add_baselines(const EvaluateOptions& o, const AnnotatedFile& file, const std::vector<std::string>& truth, Evaluation& out) {
  const LabelMap map = o.map.empty() ? LabelMap{} : read_label_map(o.map);
  const std::vector<std::string> labels = read_labels(o.train, o.truth, map);
  const NamedCounts train = read_counts(o.train), test = read_counts(o.file);
  BaselineOptions options;
  options.seed = o.common.seed;
  const BaselineLabels baselines = baseline_labels(train.counts, labels, with_genes(test.counts, test.genes, train.genes), options);
  out.majority = annotation_metrics(truth, baselines.majority, file.texts);
  out.knn_pca = annotation_metrics(truth, baselines.knn_pca, file.texts);
  out.logistic_pca = annotation_metrics(truth, baselines.logistic_pca, file.texts);
  for (const auto& label : labels) out.n_train += !label.empty();
}

nlohmann::ordered_json split_json(const EvaluateOptions& o, const Evaluation& e) {
  nlohmann::ordered_json split{{"seed", nullptr}, {"n_train", nullptr}, {"n_test", e.n_test}};
  if (o.split_seed) split["seed"] = *o.split_seed;
  if (e.majority) split["n_train"] = e.n_train;
  return split;
}

void put_baselines(const EvaluateOptions& o, const Evaluation& e, nlohmann::ordered_json& json) {
  if (e.majority) {
    json["majority"] = to_json(*e.majority);
    json["knn_pca"] = to_json(*e.knn_pca);
    json["logistic_pca"] = to_json(*e.logistic_pca);
  }
  json["split"] = split_json(o, e);
}

nlohmann::ordered_json metrics_file(const EvaluateOptions& o, const Evaluation& e) {
  nlohmann::ordered_json json{{"langcell", to_json(e.langcell)}};
  put_baselines(o, e, json);
  return json;
}

void print_tables(const Evaluation& e) {
  fmt::print("{:<28} {:>7} {:>9} {:>9} {:>18} {:>9}\n", "method", "cells", "accuracy", "macro-F1", "balanced accuracy", "coverage");
  auto line = [](const char* name, const Metrics& m) {
    fmt::print("{:<28} {:>7} {:>9.4f} {:>9.4f} {:>18.4f} {:>9.4f}\n", name, m.n, m.accuracy, m.macro_f1, m.balanced_accuracy, m.coverage);
  };
  line("LangCell", e.langcell);
  if (e.majority) {
    line("logistic regression (PCA)", *e.logistic_pca);
    line("nearest neighbours (PCA)", *e.knn_pca);
    line("majority class", *e.majority);
  }
  fmt::print("\n{:<28} {:>7} {:>9} {:>9} {:>9}\n", "class", "cells", "precision", "recall", "F1");
  for (const auto& c : e.langcell.per_class)
    fmt::print("{:<28} {:>7} {:>9.4f} {:>9.4f} {:>9.4f}\n", c.label, c.support, c.precision, c.recall, c.f1);
}

// Labels are judged as if every cell had to have one; how many `annotate` itself would not stand by is said beside it.
void print_unassigned(const EvaluateOptions& o, const AnnotatedFile& file, const std::vector<std::string>& truth) {
  size_t kept = 0, right = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    if (truth[i].empty() || file.marked[i]) continue;
    ++kept, right += truth[i] == file.prediction[i];
  }
  if (file.unassigned == 0 || !o.prediction.ends_with("_label")) return;
  fmt::print("\n{} of {} cells are marked unassigned; of the {} others with a known truth {:.4f} are right ({}_final holds the marks)\n",
             file.unassigned, file.marked.size(), kept, kept > 0 ? static_cast<double>(right) / static_cast<double>(kept) : 0.0,
             o.prediction);
}

void write_report(const EvaluateOptions& o, const Evaluation& e, const AnnotatedFile& file, const std::vector<std::string>& truth) {
  report::AnnotationReport parts;
  report::take_metrics(metrics_file(o, e), "metrics", parts);
  parts.setting = o.setting;
  parts.prediction = o.prediction;
  parts.labelling = report::labelling_of(file);
  parts.map = report::cell_map_of(file, truth);
  const std::string name = o.file.filename().string();
  const std::string subtitle = fmt::format("{} cells · {} labels{}{}", report::grouped(file.names.size()), parts.labelling.texts.size(),
                                           o.setting.empty() ? "" : " · ", o.setting);
  write_file(o.report, report::page("LangCell: labels of " + name, subtitle,
                                    report::annotation_sections(parts) + report::data_section(report::data_summary_of(file, name))));
  say(o.common, "report: " + o.report.string());
}

void evaluate_annotation(const EvaluateOptions& o) {
  for (const auto& [out, option] : {std::pair{o.metrics, "--metrics"}, {o.report, "--report"}}) {
    require_not_an_input(out, std::vector<fs::path>{o.file, o.train, o.map, o.texts});
    require_new(out, o.overwrite ? Overwrite::yes : Overwrite::no, option);
  }
  if (o.common.threads > 0) begin(o.common);
  const LabelMap map = o.map.empty() ? LabelMap{} : read_label_map(o.map);
  AnnotatedFile file = read_annotated(o.file, o.prediction);
  if (!o.texts.empty()) file.texts = labels_of_texts(o.texts);
  const std::vector<std::string> truth = read_labels(o.file, o.truth, map);
  Evaluation e;
  e.langcell = annotation_metrics(truth, file.prediction, file.texts);
  e.n_test = e.langcell.n;
  if (!o.train.empty()) add_baselines(o, file, truth, e);
  if (e.langcell.truth_outside_texts > 0) {
    warn(
        fmt::format("{} cells are not scored: no text describes their true class (map labels with --map)", e.langcell.truth_outside_texts));
  }
  if (!o.metrics.empty()) write_file(o.metrics, metrics_file(o, e).dump(2) + "\n");
  if (!o.report.empty()) write_report(o, e, file, truth);
  if (!o.common.json) {
    print_tables(e);
    print_unassigned(o, file, truth);
    return;
  }
  nlohmann::ordered_json json = to_json(e.langcell);
  if (e.majority) put_baselines(o, e, json);
  fmt::print("{}\n", json.dump());
}

}  // namespace

void register_evaluate(Command program) {
  const std::string example = "langcell evaluate annotation labelled.h5ad --truth cell_type --train train.h5ad --metrics metrics.json";
  Command evaluate = add_command(program, "evaluate", "how good results are, beside simple methods", example);
  evaluate.require_command();
  Command command = add_command(evaluate, "annotation", "labels against a truth column: accuracy, macro-F1, confusion, per class", example);
  auto o = std::make_shared<EvaluateOptions>();
  command.add_option("FILE", o->file, "a file that annotate wrote (.h5ad)").required();
  command.add_option("--truth", o->truth, "the column of obs with the true labels").required();
  command.add_option("--prediction", o->prediction, "the column of obs to judge").capture_default_str();
  command.add_option("--train", o->train,
                     "the cells trained on, with the same truth column: adds majority class, nearest neighbours and logistic regression");
  command.add_option("--map", o->map, "two columns, tab: label in the file, label of the texts");
  command.add_option("--texts", o->texts, "the texts that could be chosen; default: the list that annotate noted in the file");
  command.add_option("--metrics", o->metrics, "write all figures to this JSON file");
  command.add_option("--report", o->report, "write a self-contained HTML report");
  command.add_flag("--overwrite", o->overwrite, "replace existing figures and an existing report");
  command.add_option("--setting", o->setting, "what these cells are to the training cells, for the report: \"seen types, same donor\"");
  command.add_option("--split-seed", o->split_seed, "seed of the split, recorded with the figures");
  command.add_option("--seed", o->common.seed, "seed of the principal components' start vector").capture_default_str();
  command.add_option("--threads", o->common.threads, "threads; 0: all cores").range(0, 4096).capture_default_str();
  command.add_flag("--quiet", o->common.quiet, "no progress on standard error");
  command.add_flag("--json", o->common.json, "the result as one JSON object on standard output");
  command.callback([o] { evaluate_annotation(*o); });
}

}  // namespace lc
