#include "tools/report/annotated_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "tools/evaluation/pca.h"
#include "tools/report/html.h"

namespace lc::report {
namespace {

struct KnownMethod {
  const char *key, *name, *short_name;
};
constexpr KnownMethod kMethods[] = {{"langcell", "LangCell", "LangCell"},
                                    {"logistic_pca", "logistic regression (PCA)", "logistic"},
                                    {"knn_pca", "nearest neighbours (PCA)", "neighbours"},
                                    {"majority", "majority class", "majority"}};

constexpr std::pair<const char*, const char*> kFacts[] = {
    {"counts", "counts from"}, {"version", "labelled by langcell"},     {"model_hash", "with the model"},
    {"score", "score"},        {"alpha", "weight α of the similarity"}, {"top_k", "texts that were matched (0: all)"}};

constexpr size_t kHash = 64;  // letters of a SHA-256: a report shows the first twelve

std::optional<double> share_in(const nlohmann::json& json, const char* name) {
  if (json.is_object() && json.contains(name) && json[name].is_number()) return json[name].get<double>();
  return std::nullopt;
}

std::string plain(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : fmt::format("{:.6g}", value.get<double>());
}

}  // namespace

Labelling labelling_of(const AnnotatedFile& file) {
  Labelling out;
  out.cells = file.prediction.size();
  out.unassigned = file.unassigned;
  out.reasons = file.reasons;
  out.texts = file.texts.empty() ? file.categories : file.texts;
  out.list = file.texts.empty() ? TextList::unknown : TextList::known;
  for (const auto& text : out.texts) out.counts.push_back(static_cast<size_t>(std::ranges::count(file.prediction, text)));
  const std::string calibration = file.uns.is_object() ? file.uns.value("calibration", "none") : "none";
  out.calibration = calibration.starts_with("none") ? Calibration::uncalibrated : Calibration::calibrated;
  return out;
}

std::optional<CellMap> cell_map_of(const AnnotatedFile& file, const std::vector<std::string>& truth) {
  if (file.width == 0) return std::nullopt;
  const size_t stride = (file.names.size() + kMapCells - 1) / kMapCells;
  std::vector<size_t> cells;
  std::vector<float> z;
  for (size_t i = 0; i < file.names.size(); i += stride) {
    const auto row = std::span(file.z).subspan(i * file.width, file.width);
    if (!std::ranges::all_of(row, [](float v) { return std::isfinite(v); })) continue;  // a cell without genes has no z
    cells.push_back(i);
    z.insert(z.end(), row.begin(), row.end());
  }
  if (cells.size() < 3) return std::nullopt;
  const DensePca pca = pca_of_rows(z, file.width, 2);
  CellMap map;
  map.of = file.names.size();
  map.explained_first = pca.explained[0];
  map.explained_second = pca.explained[1];
  for (size_t k = 0; k < cells.size(); ++k) {
    map.first.push_back(pca.scores.row(k)[0]);
    map.second.push_back(pca.scores.row(k)[1]);
    map.names.push_back(file.names[cells[k]]);
    map.label.push_back(file.prediction[cells[k]]);
    if (!truth.empty()) map.truth.push_back(truth[cells[k]]);
    if (!file.score.empty()) map.score.push_back(file.score[cells[k]]);
  }
  return map;
}

DataSummary data_summary_of(const AnnotatedFile& file, const std::string& name) {
  DataSummary out;
  out.heading = "Data: " + name;
  out.facts.emplace_back("cells", grouped(file.names.size()));
  if (!file.uns.is_object()) return out;
  for (const auto& [key, name_of_key] : kFacts) {
    if (!file.uns.contains(key) || !(file.uns[key].is_string() || file.uns[key].is_number())) continue;
    const std::string text = plain(file.uns[key]);
    out.facts.emplace_back(name_of_key, text.size() == kHash ? text.substr(0, 12) + "…" : text);
  }
  const auto id_match = share_in(file.uns, "id_match"), counts_known = share_in(file.uns, "counts_known"),
             breadth = share_in(file.uns, "breadth");
  if (id_match && counts_known && breadth) out.coverage.push_back({name, *id_match, *counts_known, *breadth});
  return out;
}

void take_metrics(const nlohmann::ordered_json& json, const std::string& where, AnnotationReport& report) {
  if (json.contains("accuracy")) {
    report.methods.push_back({"LangCell", "LangCell", metrics_from_json(json, where)});
  }
  for (const auto& method : kMethods) {
    if (json.contains(method.key))
      report.methods.push_back({method.name, method.short_name, metrics_from_json(json[method.key], where + ": " + method.key)});
  }
  if (report.methods.empty()) throw DataError(fmt::format("{}: holds no metrics of `langcell evaluate`", where));
  const nlohmann::ordered_json split = json.value("split", nlohmann::ordered_json::object());
  const auto natural = [&](const char* key) { return split.contains(key) && split[key].is_number_integer() && split[key] >= 0; };
  if (natural("n_train")) report.train_cells = split["n_train"].get<size_t>();
  if (natural("seed")) report.seed = split["seed"].get<std::uint64_t>();
}

}  // namespace lc::report
