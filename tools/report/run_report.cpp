// One small chart per objective: their scales differ too much for one picture.
#include "tools/report/run_report.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "models/langcell/data/corpus.h"
#include "tools/report/html.h"

namespace lc::report {
namespace {

namespace fs = std::filesystem;

struct Objective {
  const char *field, *name;
};
constexpr Objective kObjectives[] = {{"loss", "Total loss"},
                                     {"mgm", "Masked genes (MGM)"},
                                     {"cell_cell", "Cell–cell contrast"},
                                     {"cell_text", "Cell–text contrast"},
                                     {"matching", "Matching"}};
constexpr const char* kStageColors[] = {"#44736f", "#332288"};

void collect_numbers(const std::string& prefix, const nlohmann::json& object, std::map<std::string, double>& out) {
  for (const auto& [key, value] : object.items()) {
    const std::string name = prefix.empty() ? key : prefix + "." + key;
    if (value.is_number()) out[name] = value.get<double>();
    if (value.is_object()) collect_numbers(name, value, out);
  }
}

LoggedStep logged_step(const nlohmann::json& line) {
  LoggedStep step;
  collect_numbers("", line, step.values);
  step.stage = static_cast<int>(step.values["stage"]);
  step.step = step.values["step"];
  step.values.erase("stage");
  step.values.erase("step");
  return step;
}

double value_of(const LoggedStep& step, const std::string& field) {
  const auto found = step.values.find(field);
  return found == step.values.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
}

// Where each stage begins on an axis that counts the steps of all stages.
std::map<int, double> stage_starts(const TrainingLog& log) {
  std::map<int, double> last, starts;
  for (const auto& step : log.steps) last[step.stage] = std::max(last[step.stage], step.step);
  double start = 0;
  for (const auto& [stage, steps] : last) {
    starts[stage] = start;
    start += steps;
  }
  return starts;
}

std::vector<double> running_mean(const std::vector<double>& values, size_t half) {
  std::vector<double> means(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    double sum = 0;
    size_t n = 0;
    for (size_t k = i - std::min(i, half); k < std::min(values.size(), i + half + 1); ++k) {
      if (!std::isfinite(values[k])) continue;
      sum += values[k];
      ++n;
    }
    means[i] = std::isfinite(values[i]) ? sum / static_cast<double>(n) : values[i];
  }
  return means;
}

void add_stage(LineChart& chart, const TrainingLog& log, const std::string& field, std::pair<int, double> stage_and_start) {
  const auto [stage, start] = stage_and_start;
  const std::string color = kStageColors[stage == 2 ? 1 : 0];
  Series raw{"", {}, {}, color, Stroke::faint};
  for (const auto& step : log.steps) {
    if (step.stage != stage) continue;
    raw.x.push_back(start + step.step);
    raw.y.push_back(value_of(step, field));
  }
  if (std::ranges::none_of(raw.y, [](double y) { return std::isfinite(y); })) return;
  Series mean{fmt::format("stage {}", stage), raw.x, running_mean(raw.y, std::max<size_t>(1, raw.y.size() / 40)), color, Stroke::line};
  if (raw.y.size() < 12) mean.y = raw.y;
  chart.series.push_back(std::move(raw));
  chart.series.push_back(std::move(mean));
  Series checked{"validation", {}, {}, "#b04a5a", Stroke::points};
  for (const auto& step : log.validations) {
    if (step.stage != stage || !std::isfinite(value_of(step, field))) continue;
    checked.x.push_back(start + step.step);
    checked.y.push_back(value_of(step, field));
  }
  if (!checked.x.empty()) chart.series.push_back(std::move(checked));
}

std::string loss_chart(const TrainingLog& log, const Objective& objective) {
  LineChart chart;
  chart.title = objective.name;
  chart.x_label = "step";
  chart.y_label = "loss";
  const auto starts = stage_starts(log);
  chart.x_from = 0;
  chart.x_to = starts.rbegin()->second + log.steps.back().step;
  for (const auto& stage : starts) add_stage(chart, log, objective.field, stage);
  if (chart.series.empty()) return "";
  for (size_t k = 0; k < chart.series.size(); ++k) {  // one legend entry for all validations
    const bool again = std::any_of(chart.series.begin(), chart.series.begin() + static_cast<std::ptrdiff_t>(k),
                                   [&](const Series& s) { return s.name == chart.series[k].name; });
    if (again) chart.series[k].name.clear();
  }
  for (const auto& [stage, start] : starts) {
    if (start > 0) chart.marks.push_back({start, fmt::format("stage {}", stage)});
  }
  return "<figure>\n" + line_chart(chart) + "</figure>\n";
}

double median_of(const TrainingLog& log, int stage, const std::string& field) {
  std::vector<double> values;
  for (const auto& step : log.steps) {
    if (step.stage == stage && std::isfinite(value_of(step, field))) values.push_back(value_of(step, field));
  }
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return "–";
  return std::abs(value) >= 1000 ? grouped(static_cast<unsigned long long>(std::llround(value))) : fmt::format("{:.3g}", value);
}

// Start and end of every loss: means over the first and the last tenth of a stage's logged steps.
std::string losses_table(const TrainingLog& log) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [stage, start] : stage_starts(log)) {
    std::vector<const LoggedStep*> steps;
    for (const auto& step : log.steps) {
      if (step.stage == stage) steps.push_back(&step);
    }
    const size_t tenth = std::max<size_t>(1, steps.size() / 10);
    auto mean = [&](size_t from, const char* field) {
      double sum = 0;
      for (size_t k = from; k < from + tenth; ++k) sum += value_of(*steps[k], field);
      return sum / static_cast<double>(tenth);
    };
    std::vector<std::string> row{std::to_string(stage), short_number(steps.back()->step)};
    for (const auto& objective : kObjectives) {
      const double first = mean(0, objective.field), last = mean(steps.size() - tenth, objective.field);
      row.push_back(std::isfinite(last) ? fmt::format("{} → {}", short_number(first), short_number(last)) : "–");
    }
    row.push_back(short_number(median_of(log, stage, "samples_per_s")));
    row.push_back(short_number(median_of(log, stage, "tokens_per_s")));
    rows.push_back(std::move(row));
  }
  std::vector<Column> columns{{"stage"}, {"steps"}};
  for (const auto& objective : kObjectives) columns.push_back({objective.name});
  columns.push_back({"cells/s"});
  columns.push_back({"tokens/s"});
  return table(columns, rows);
}

std::string validation_table(const TrainingLog& log) {
  if (log.validations.empty()) return "";
  std::vector<std::string> fields;
  for (const auto& step : log.validations) {
    for (const auto& [field, value] : step.values) {
      if (std::ranges::find(fields, field) == fields.end()) fields.push_back(field);
    }
  }
  std::vector<Column> columns{{"stage"}, {"step"}};
  for (const auto& field : fields) columns.push_back({field});
  std::vector<std::vector<std::string>> rows;
  for (const auto& step : log.validations) {
    std::vector<std::string> row{std::to_string(step.stage), short_number(step.step)};
    for (const auto& field : fields) row.push_back(short_number(value_of(step, field)));
    rows.push_back(std::move(row));
  }
  return folded(fmt::format("Validation on the holdout ({} times)", log.validations.size()), table(columns, rows));
}

std::vector<fs::path> corpora_of(const std::string& config) {
  std::vector<fs::path> paths;
  try {
    const toml::table table_of_config = toml::parse(config);
    if (const toml::array* corpora = table_of_config["data"]["corpus"].as_array()) {
      for (const auto& entry : *corpora) {
        if (const auto path = entry.value<std::string>()) paths.emplace_back(*path);
      }
    }
  } catch (const toml::parse_error&) {
    return {};  // the report shows the text as it is
  }
  return paths;
}

}  // namespace

TrainingLog parse_training_log(std::string_view lines, const std::string& where) {
  TrainingLog log;
  for (size_t number = 1; !lines.empty(); ++number) {
    const size_t end = lines.find('\n');
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
    if (line.empty()) continue;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object()) {
      if (lines.empty() && end == std::string_view::npos) break;
      throw DataError(fmt::format("{}: line {} is not a JSON object: this is not the log of a run", where, number));
    }
    if (!json.contains("event")) {
      log.steps.push_back(logged_step(json));
    } else if (json["event"] == "validate") {
      log.validations.push_back(logged_step(json));
    }
  }
  return log;
}

bool is_run_folder(const fs::path& path) { return fs::is_directory(path) && fs::exists(path / "train.jsonl"); }

RunFolder read_run_folder(const fs::path& path) {
  if (!is_run_folder(path))
    throw DataError(
        fmt::format("{}: not a run folder: it has no train.jsonl; give the folder of `langcell pretrain --run`", path.string()));
  RunFolder run;
  run.path = path;
  run.name = fs::weakly_canonical(path).filename().string();
  run.log = parse_training_log(read_file(path / "train.jsonl"), (path / "train.jsonl").string());
  if (fs::exists(path / "config.resolved.toml")) run.config = read_file(path / "config.resolved.toml");
  if (fs::exists(path / "manifest.json")) {
    run.manifest = nlohmann::json::parse(read_file(path / "manifest.json"), nullptr, false);
    if (run.manifest.is_discarded()) throw DataError(fmt::format("{}: not JSON", (path / "manifest.json").string()));
  }
  return run;
}

DataSummary summary_of(const fs::path& path) {
  const Corpus corpus = Corpus::open(path);
  DataSummary data;
  data.heading = "Training data: " + path.filename().string();
  data.facts = {{"cells", grouped(corpus.cells())},
                {"gene tokens", grouped(corpus.tokens())},
                {"genes in the vocabulary", grouped(corpus.vocabulary().genes().size())},
                {"distinct texts", grouped(corpus.all_texts().size())}};
  for (const auto& input : corpus.inputs()) data.coverage.push_back({input.file, input.id_match, input.counts_known, input.breadth});
  const Funnel funnel = corpus.funnel();
  data.funnel = {{"read", funnel.read}};
  for (const auto& [reason, cells] : funnel.dropped) data.funnel.push_back({"dropped: " + reason, cells});
  data.funnel.push_back({"kept", funnel.kept});
  for (const auto& [what, cells] : funnel.noted) data.funnel.push_back({"of these " + what, cells});
  return data;
}

std::vector<DataSummary> training_data(const RunFolder& run) {
  std::vector<DataSummary> out;
  for (const fs::path& named : corpora_of(run.config)) {
    // As the run named it, or beside the run folder when both were moved.
    const fs::path path = fs::exists(named) ? named : run.path / ".." / named.filename();
    if (!fs::exists(path)) continue;
    for (const fs::path& file : corpus_files(std::span(&path, 1))) out.push_back(summary_of(file));
  }
  return out;
}

std::string training_section(const TrainingLog& log) {
  if (log.steps.empty()) return section("Training", paragraph("No step has been logged yet."));
  std::vector<std::string> charts;
  for (const auto& objective : kObjectives) {
    std::string chart = loss_chart(log, objective);
    if (!chart.empty()) charts.push_back(std::move(chart));
  }
  std::string body = losses_table(log);
  body +=
      "<p class=\"detail\">Each pair: mean over the first and over the last tenth of the stage&#8217;s logged steps. Speeds: "
      "medians.</p>\n";
  body += side_by_side(charts);
  body +=
      "<p class=\"detail\">Faint: single logged steps; strong: running mean. Contrastive losses are cross-entropy minus the entropy of the "
      "targets: 0 is perfect.</p>\n";
  return section("Training", body + validation_table(log));
}

std::string provenance_section(const RunFolder& run) {
  std::string body;
  if (!run.manifest.is_null()) body += folded("Version, machine and data files (manifest.json)", json_facts(run.manifest));
  if (!run.config.empty())
    body += folded("Resolved configuration: starts the same run again (config.resolved.toml)", preformatted(run.config));
  return body.empty() ? "" : section("How it was made", body);
}

std::string run_sections(const RunFolder& run) {
  std::string body;
  for (const DataSummary& data : training_data(run)) body += data_section(data);
  return body + training_section(run.log) + provenance_section(run);
}

void write_run_report(const std::filesystem::path& run, const std::filesystem::path& out) {
  const RunFolder folder = read_run_folder(run);
  write_file(out, page("LangCell: training run " + folder.name, "", run_sections(folder)));
}

}  // namespace lc::report
