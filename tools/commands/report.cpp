// langcell report: the self-contained page of a run folder, an annotated file, or a folder that holds both (as the demo leaves it).
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tools/commands/command.h"
#include "tools/commands/outputs.h"
#include "tools/evaluation/annotated_file.h"
#include "tools/evaluation/metrics.h"
#include "tools/report/annotated_parts.h"
#include "tools/report/html.h"
#include "tools/report/run_report.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

struct ReportOptions {
  fs::path input, out, metrics, run, map;
  std::string truth, prediction = "langcell_label", setting;
  bool overwrite = false, quiet = false;
};

struct Sources {  // empty: not there
  fs::path annotated, run, metrics;
};

Sources sources_of(const ReportOptions& o) {
  Sources s{{}, o.run, o.metrics};
  if (!fs::exists(o.input)) throw DataError(fmt::format("{}: no such file or folder", o.input.string()));
  if (!fs::is_directory(o.input)) {
    s.annotated = o.input;
  } else if (report::is_run_folder(o.input)) {
    s.run = o.input;
  } else if (fs::exists(o.input / "annotated.h5ad") || report::is_run_folder(o.input / "run")) {
    if (fs::exists(o.input / "annotated.h5ad")) s.annotated = o.input / "annotated.h5ad";
    if (s.run.empty() && report::is_run_folder(o.input / "run")) s.run = o.input / "run";
    if (s.metrics.empty() && fs::exists(o.input / "metrics.json")) s.metrics = o.input / "metrics.json";
  } else {
    throw DataError(
        fmt::format("{}: nothing to report: wanted a run folder (train.jsonl), an annotated .h5ad, or a folder with annotated.h5ad or run/",
                    o.input.string()));
  }
  return s;
}

nlohmann::ordered_json read_metrics(const fs::path& path) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(read_file(path), nullptr, false);
  if (!json.is_object()) throw DataError(fmt::format("{}: not a JSON object: wanted the metrics of `langcell evaluate`", path.string()));
  return json;
}

report::AnnotationReport annotation_of(const ReportOptions& o, const AnnotatedFile& file, const Sources& sources) {
  report::AnnotationReport parts;
  std::vector<std::string> truth;
  if (!o.truth.empty()) truth = read_labels(sources.annotated, o.truth, o.map.empty() ? LabelMap{} : read_label_map(o.map));
  if (!sources.metrics.empty()) {
    report::take_metrics(read_metrics(sources.metrics), sources.metrics.string(), parts);
    const Metrics& m = parts.methods[0].metrics;
    if (m.n + m.truth_outside_texts > file.names.size()) {
      throw DataError(fmt::format("{}: scores {} cells, but {} has {}: these metrics belong to another file", sources.metrics.string(),
                                  m.n + m.truth_outside_texts, sources.annotated.string(), file.names.size()));
    }
  } else if (!truth.empty()) {
    parts.methods.push_back({"LangCell", "LangCell", annotation_metrics(truth, file.prediction, file.texts)});
  }
  parts.setting = o.setting;
  parts.prediction = o.prediction;
  parts.labelling = report::labelling_of(file);
  parts.map = report::cell_map_of(file, truth);
  return parts;
}

void write_report(const ReportOptions& o) {
  const Sources sources = sources_of(o);
  require_not_an_input(o.out, std::vector<fs::path>{sources.annotated, sources.metrics, o.map});
  require_new(o.out, o.overwrite ? Overwrite::yes : Overwrite::no);
  std::string body, subtitle, title;
  if (!sources.annotated.empty()) {
    const AnnotatedFile file = read_annotated(sources.annotated, o.prediction);
    const std::string name = sources.annotated.filename().string();
    body += report::annotation_sections(annotation_of(o, file, sources)) + report::data_section(report::data_summary_of(file, name));
    title = "LangCell: labels of " + name;
    subtitle = fmt::format("{} cells · {} labels{}{}", report::grouped(file.names.size()), report::labelling_of(file).texts.size(),
                           o.setting.empty() ? "" : " · ", o.setting);
  }
  if (!sources.run.empty()) {
    const report::RunFolder run = report::read_run_folder(sources.run);
    body += report::run_sections(run);
    if (title.empty()) title = "LangCell: training run " + run.name;
  }
  write_file(o.out, report::page(title, subtitle, body));
  if (!o.quiet) fmt::print("{}\n", o.out.string());
}

}  // namespace

void register_report(Command program) {
  Command command = add_command(program, "report", "a self-contained HTML page of a run or of an annotated file",
                                "langcell report labelled.h5ad --truth cell_type --metrics metrics.json --run run --out report.html");
  auto o = std::make_shared<ReportOptions>();
  command.add_option("INPUT", o->input, "a run folder, an annotated .h5ad, or a folder with annotated.h5ad, run/ and metrics.json")
      .required();
  command.add_option("--out", o->out, "the page to write").required();
  command.add_option("--truth", o->truth, "the column of obs with the true labels");
  command.add_option("--prediction", o->prediction, "the column of obs with the labels").capture_default_str();
  command.add_option("--map", o->map, "two columns, tab: label in the file, label of the texts");
  command.add_option("--metrics", o->metrics, "figures that `evaluate --metrics` wrote: shows the baselines");
  command.add_option("--run", o->run, "the run folder that made the model: adds loss curves and configuration");
  command.add_option("--setting", o->setting, "what these cells are to the training cells: \"seen types, same donor\"");
  command.add_flag("--overwrite", o->overwrite, "replace an existing page");
  command.add_flag("--quiet", o->quiet, "do not print the page's name");
  command.callback([o] { write_report(*o); });
}

}  // namespace lc
