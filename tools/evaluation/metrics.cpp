// Confusion counts and everything that follows from them.
#include "tools/evaluation/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "engine/errors.h"

namespace lc {
namespace {

bool is_label(const std::string& label) { return !label.empty() && label != kUnassigned; }

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

// Classes that occur, in the order of the texts, the others behind them by name.
std::vector<std::string> ordered_classes(const std::set<std::string>& present, std::span<const std::string> texts) {
  std::vector<std::string> ordered;
  std::set<std::string> left = present;
  for (const auto& text : texts) {
    if (left.erase(text) > 0) ordered.push_back(text);
  }
  ordered.insert(ordered.end(), left.begin(), left.end());
  return ordered;
}

void score_classes(Metrics& m, std::span<const size_t> support) {
  const size_t classes = m.labels.size();
  size_t correct = 0, assigned = 0, true_classes = 0;
  for (size_t k = 0; k < classes; ++k) {
    size_t predicted = 0;
    for (size_t t = 0; t < classes; ++t) predicted += m.confusion[t][k];
    const auto hits = static_cast<double>(m.confusion[k][k]);
    ClassScores scores{m.labels[k], support[k], ratio(hits, static_cast<double>(predicted)), ratio(hits, static_cast<double>(support[k])),
                       0};
    scores.f1 = ratio(2 * hits, static_cast<double>(predicted + support[k]));
    correct += m.confusion[k][k];
    assigned += predicted;
    true_classes += support[k] > 0;
    m.macro_f1 += scores.f1;
    m.balanced_accuracy += scores.recall;
    m.per_class.push_back(std::move(scores));
  }
  m.accuracy = ratio(static_cast<double>(correct), static_cast<double>(m.n));
  m.macro_f1 = ratio(m.macro_f1, static_cast<double>(classes));
  m.balanced_accuracy = ratio(m.balanced_accuracy, static_cast<double>(true_classes));
  m.coverage = ratio(static_cast<double>(assigned), static_cast<double>(m.n));
}

}  // namespace

Metrics annotation_metrics(std::span<const std::string> truth, std::span<const std::string> prediction,
                           std::span<const std::string> texts) {
  if (truth.size() != prediction.size()) {
    throw DataError(fmt::format("evaluation: {} true labels but {} predicted ones: both must come from the same cells", truth.size(),
                                prediction.size()));
  }
  const std::set<std::string> known(texts.begin(), texts.end());
  Metrics m;
  std::vector<size_t> scored;
  std::set<std::string> present;
  for (size_t i = 0; i < truth.size(); ++i) {
    if (truth[i].empty()) continue;
    if (!known.empty() && !known.contains(truth[i])) {
      ++m.truth_outside_texts;
      continue;
    }
    scored.push_back(i);
    present.insert(truth[i]);
    if (is_label(prediction[i])) present.insert(prediction[i]);
  }
  m.n = scored.size();
  if (m.n == 0) {
    throw DataError(
        fmt::format("evaluation: none of {} cells can be scored ({} have a true class without a text, the rest no truth): check --truth, "
                    "--map and --texts",
                    truth.size(), m.truth_outside_texts));
  }
  m.labels = ordered_classes(present, texts);
  std::unordered_map<std::string, size_t> index;
  for (size_t k = 0; k < m.labels.size(); ++k) index[m.labels[k]] = k;
  m.confusion.assign(m.labels.size(), std::vector<size_t>(m.labels.size(), 0));
  std::vector<size_t> support(m.labels.size(), 0);
  for (size_t i : scored) {
    const size_t t = index[truth[i]];
    ++support[t];
    if (is_label(prediction[i])) ++m.confusion[t][index[prediction[i]]];
  }
  score_classes(m, support);
  return m;
}

nlohmann::ordered_json to_json(const Metrics& m) {
  nlohmann::ordered_json classes = nlohmann::ordered_json::array();
  for (const auto& c : m.per_class) {
    classes.push_back({{"label", c.label}, {"support", c.support}, {"precision", c.precision}, {"recall", c.recall}, {"f1", c.f1}});
  }
  return {{"n", m.n},
          {"accuracy", m.accuracy},
          {"macro_f1", m.macro_f1},
          {"balanced_accuracy", m.balanced_accuracy},
          {"coverage", m.coverage},
          {"truth_outside_texts", m.truth_outside_texts},
          {"labels", m.labels},
          {"confusion", m.confusion},
          {"per_class", classes}};
}

Metrics metrics_from_json(const nlohmann::ordered_json& json, const std::string& where) {
  try {
    Metrics m;
    json.at("n").get_to(m.n);
    json.at("accuracy").get_to(m.accuracy);
    json.at("macro_f1").get_to(m.macro_f1);
    json.at("balanced_accuracy").get_to(m.balanced_accuracy);
    json.at("coverage").get_to(m.coverage);
    json.at("truth_outside_texts").get_to(m.truth_outside_texts);
    json.at("labels").get_to(m.labels);
    json.at("confusion").get_to(m.confusion);
    for (const auto& c : json.at("per_class")) {
      m.per_class.push_back({c.at("label"), c.at("support"), c.at("precision"), c.at("recall"), c.at("f1")});
    }
    const bool square = m.confusion.size() == m.labels.size() && m.per_class.size() == m.labels.size() &&
                        std::ranges::all_of(m.confusion, [&](const auto& row) { return row.size() == m.labels.size(); });
    if (!square)
      throw DataError(fmt::format("{}: labels, confusion and per_class differ in length: write it again with `langcell evaluate`", where));
    return m;
  } catch (const nlohmann::json::exception& e) {
    throw DataError(fmt::format("{}: not metrics of `langcell evaluate` ({})", where, e.what()));
  }
}

}  // namespace lc
