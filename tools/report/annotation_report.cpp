// Result, confusion, classes, map, labels: in the order in which a reader asks.
#include "tools/report/annotation_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tools/evaluation/baselines.h"
#include "tools/report/html.h"

namespace lc::report {
namespace {

const ClassScores* scores_of(const Metrics& metrics, const std::string& label) {
  const auto found = std::ranges::find(metrics.per_class, label, &ClassScores::label);
  return found == metrics.per_class.end() ? nullptr : &*found;
}

std::string setting_text(const AnnotationReport& report) {
  const Metrics& m = report.methods[0].metrics;
  std::string text =
      report.setting.empty()
          ? "Setting not stated: this report does not know whether these cells, their donors or their types were part of the training."
          : fmt::format("What was measured: {}. The figures hold for this setting and say nothing about others.", report.setting);
  text += fmt::format(" Scored: {} cells", grouped(m.n));
  if (report.train_cells) text += fmt::format("; the baselines learned from {} training cells", grouped(*report.train_cells));
  if (report.seed) text += fmt::format(" (split seed {})", *report.seed);
  return text + ".";
}

std::string methods_table(const AnnotationReport& report) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& method : report.methods) {
    const Metrics& m = method.metrics;
    const std::string name = &method == &report.methods[0] ? "<strong>" + escaped(method.name) + "</strong>" : escaped(method.name);
    rows.push_back({name, score(m.accuracy) + share_bar(m.accuracy), score(m.macro_f1) + share_bar(m.macro_f1),
                    score(m.balanced_accuracy) + share_bar(m.balanced_accuracy), percent(m.coverage)});
  }
  std::string out = table({{"method", Align::left}, {"accuracy"}, {"macro-F1"}, {"balanced accuracy"}, {"coverage"}}, rows);
  if (report.methods.size() > 1) {
    const BaselineOptions options;
    out += fmt::format(
        "<p class=\"detail\">Baselines: fitted on the training cells only and scored on the same cells as {}. PCA: {} components of "
        "log1p(counts per 10,000) of the {} most "
        "variable genes; {} nearest neighbours; multinomial logistic regression with L2 penalty (C = 1).</p>\n",
        escaped(report.methods[0].name), options.components, grouped(options.genes), options.neighbours);
  }
  return out;
}

std::string result_section(const AnnotationReport& report) {
  const Metrics& m = report.methods[0].metrics;
  std::vector<Tile> figures{{score(m.accuracy), "accuracy", fmt::format("of {} cells", grouped(m.n))},
                            {score(m.macro_f1), "macro-F1", fmt::format("mean over {} classes", m.labels.size())},
                            {score(m.balanced_accuracy), "balanced accuracy", "mean recall of the true classes"},
                            {percent(m.coverage), "coverage", "of the scored cells have a label"}};
  std::string body = note(setting_text(report)) + tiles(figures) + methods_table(report);
  if (m.truth_outside_texts > 0) {
    body += note(fmt::format("{} further cells are not scored: no text describes their true class, so no method could be right about them.",
                             grouped(m.truth_outside_texts)));
  }
  return section("Result", body);
}

std::string confusion_section(const Metrics& m) {
  ConfusionMap map{m.labels, m.confusion, {}};
  for (const auto& scores : m.per_class) map.support.push_back(scores.support);
  const auto assigned = static_cast<size_t>(std::lround(m.coverage * static_cast<double>(m.n)));
  std::string caption = "Rows: true class. Columns: label given.";
  if (assigned < m.n) caption += fmt::format(" Cells without a label ({}) stand in no column.", grouped(m.n - assigned));
  return section("Confusion matrix", figure(confusion_map(map), caption));
}

std::string classes_section(const AnnotationReport& report) {
  const Metrics& m = report.methods[0].metrics;
  std::vector<Column> columns{{"class", Align::left}, {"cells"}, {"precision"}, {"recall"}, {"F1 " + report.methods[0].short_name}};
  for (size_t k = 1; k < report.methods.size(); ++k) columns.push_back({"F1 " + report.methods[k].short_name});
  std::vector<std::vector<std::string>> rows;
  for (const auto& c : m.per_class) {
    std::vector<std::string> row{escaped(c.label), grouped(c.support), score(c.precision), score(c.recall), score(c.f1) + share_bar(c.f1)};
    for (size_t k = 1; k < report.methods.size(); ++k) {
      const ClassScores* other = scores_of(report.methods[k].metrics, c.label);
      row.push_back(other != nullptr ? score(other->f1) + share_bar(other->f1) : "–");
    }
    rows.push_back(std::move(row));
  }
  return section("Per class", table(columns, rows));
}

std::vector<int> numbered(const std::vector<std::string>& labels, const std::map<std::string, int>& number) {
  std::vector<int> out;
  for (const auto& label : labels) {
    const auto found = number.find(label);
    out.push_back(found == number.end() ? -1 : found->second);
  }
  return out;
}

// The order of the texts; classes that only the truth knows stand behind them.
std::vector<std::string> map_categories(const AnnotationReport& report) {
  std::vector<std::string> categories;
  auto take = [&](const std::string& label) {
    if (!label.empty() && label != kUnassigned && std::ranges::find(categories, label) == categories.end()) categories.push_back(label);
  };
  auto occurs = [&](const std::string& label) {
    return std::ranges::find(report.map->label, label) != report.map->label.end() ||
           std::ranges::find(report.map->truth, label) != report.map->truth.end();
  };
  for (const auto& label : report.labelling.texts) {
    if (occurs(label)) take(label);
  }
  for (const auto& label : report.map->truth) take(label);
  for (const auto& label : report.map->label) take(label);
  return categories;
}

std::string map_section(const AnnotationReport& report) {
  const CellMap& map = *report.map;
  const auto categories = map_categories(report);
  std::map<std::string, int> number;
  for (size_t k = 0; k < categories.size(); ++k) number[categories[k]] = static_cast<int>(k);
  Scatter chart;
  chart.x = map.first;
  chart.y = map.second;
  chart.categories = categories;
  chart.x_label = fmt::format("first component of z ({} of the variance)", percent(map.explained_first));
  chart.y_label = fmt::format("second component ({})", percent(map.explained_second));
  for (size_t i = 0; i < map.label.size(); ++i) {
    std::string tip = i < map.names.size() ? map.names[i] + "\n" : "";
    if (!map.truth.empty()) tip += "truth: " + (map.truth[i].empty() ? "not known" : map.truth[i]) + "\n";
    tip += "label: " + (map.label[i].empty() ? "none" : map.label[i]);
    if (i < map.score.size() && std::isfinite(map.score[i])) tip += fmt::format(" (score {:.4f})", map.score[i]);
    chart.tooltips.push_back(std::move(tip));
  }
  std::vector<std::string> charts;
  if (!map.truth.empty()) {
    chart.title = "Coloured by truth";
    chart.category = numbered(map.truth, number);
    charts.push_back("<figure>\n" + scatter(chart) + "</figure>\n");
  }
  chart.title = "Coloured by label";
  chart.category = numbered(map.label, number);
  charts.push_back("<figure>\n" + scatter(chart) + "</figure>\n");
  std::string caption = fmt::format("{} cells", grouped(map.first.size()));
  if (map.first.size() < map.of)
    caption = fmt::format("{} of {} cells, every {}th", grouped(map.first.size()), grouped(map.of),
                          (map.of + map.first.size() - 1) / map.first.size());
  caption += ", each the projection z of its expression. Grey: without a class. Hover a point for its name.";
  return section("The cells in LangCell's space",
                 side_by_side(charts) + category_legend(categories) + "<p class=\"detail\">" + escaped(caption) + "</p>\n");
}

std::string labels_section(const Labelling& labelling) {
  std::vector<std::vector<std::string>> rows;
  for (size_t k = 0; k < labelling.texts.size(); ++k) {
    const size_t count = k < labelling.counts.size() ? labelling.counts[k] : 0;
    const double share = labelling.cells > 0 ? static_cast<double>(count) / static_cast<double>(labelling.cells) : 0;
    rows.push_back({escaped(labelling.texts[k]), grouped(count), percent(share) + share_bar(share)});
  }
  std::string body = table({{"label", Align::left}, {"cells"}, {"share"}}, rows);
  std::string reasons;
  for (const auto& [reason, count] : labelling.reasons)
    reasons += fmt::format("{}{} {}", reasons.empty() ? ": " : ", ", reason, grouped(count));
  body += paragraph(fmt::format("Unassigned: {} of {} cells{}{}.", grouped(labelling.unassigned), grouped(labelling.cells),
                                labelling.calibration == Calibration::uncalibrated ? " (uncalibrated)" : "", reasons));
  if (labelling.calibration == Calibration::uncalibrated) {
    body += paragraph(
        "Uncalibrated: a cell is unassigned only when it has no gene of the vocabulary or no text reaches a match probability of 0.5.");
  }
  const std::string here = labelling.list == TextList::known ? fmt::format(", here {} texts", labelling.texts.size()) : "";
  body +=
      note(fmt::format("Scores are comparable only within one list of texts{}: the same cell and text score lower in a longer list. Do "
                       "not use one threshold across lists.",
                       here));
  return section("Labels given", body);
}

}  // namespace

std::string annotation_sections(const AnnotationReport& report) {
  std::string out;
  if (!report.methods.empty()) out += result_section(report) + confusion_section(report.methods[0].metrics) + classes_section(report);
  if (report.map && !report.map->first.empty()) out += map_section(report);
  return out + labels_section(report.labelling);
}

}  // namespace lc::report
