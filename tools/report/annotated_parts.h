// From what `annotate` and `evaluate` wrote to the parts of a report.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/evaluation/annotated_file.h"
#include "tools/report/annotation_report.h"
#include "tools/report/data_summary.h"

namespace lc::report {

Labelling labelling_of(const AnnotatedFile& file);

// z on its first two principal components; at most `kMapCells` cells, evenly chosen; nothing without z. truth may be empty.
inline constexpr size_t kMapCells = 3000;
std::optional<CellMap> cell_map_of(const AnnotatedFile& file, const std::vector<std::string>& truth);

DataSummary data_summary_of(const AnnotatedFile& file, const std::string& name);

// metrics.json: {langcell, majority, knn_pca, logistic_pca, split}, or the metrics of one method alone.
void take_metrics(const nlohmann::ordered_json& json, const std::string& where, AnnotationReport& report);

}  // namespace lc::report
