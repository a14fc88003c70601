// The annotation part of a report: how good the labels are, beside the baselines on the same cells, and where the cells lie in z.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/evaluation/metrics.h"

namespace lc::report {

struct Method {
  std::string name, short_name;  // "logistic regression (PCA)", "logistic"
  Metrics metrics;
};

struct CellMap {  // cells on the first two principal components of z
  std::vector<double> first, second;
  double explained_first = 0, explained_second = 0;  // shares of the variance
  std::vector<std::string> names, label, truth;      // truth: empty when not known
  std::vector<double> score;                         // empty when not known
  size_t of = 0;                                     // cells in the file; the map may show a part
};

enum class Calibration : std::uint8_t { uncalibrated, calibrated };

enum class TextList : std::uint8_t { unknown, known };

struct Labelling {  // what `annotate` wrote
  size_t cells = 0, unassigned = 0;
  Calibration calibration = Calibration::uncalibrated;
  std::vector<std::string> texts;  // the labels that could be given, in order; those that occur where that is not known
  TextList list = TextList::unknown;
  std::vector<size_t> counts;                           // cells per text
  std::vector<std::pair<std::string, size_t>> reasons;  // of unassigned cells
};

struct AnnotationReport {
  std::string setting;     // what the cells are to the training data, as the caller states it: "seen types, same donor"; "" = not stated
  std::string prediction;  // the column that was judged
  std::vector<Method> methods;  // the judged labels first, then baselines; empty without truth
  std::optional<size_t> train_cells;
  std::optional<std::uint64_t> seed;  // of the split
  std::optional<CellMap> map;
  Labelling labelling;
};

std::string annotation_sections(const AnnotationReport& report);

}  // namespace lc::report
