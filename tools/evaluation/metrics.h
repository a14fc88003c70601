// How good labels are: the figures of `evaluate annotation`, defined as scikit-learn defines them.
// A cell without a label (missing or "unassigned") counts as wrong: it is in its class's support and in no column of the confusion matrix.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

namespace lc {

inline constexpr const char* kUnassigned = "unassigned";

struct ClassScores {
  std::string label;
  size_t support = 0;  // cells of this class in the truth
  double precision = 0, recall = 0, f1 = 0;
};

struct Metrics {
  size_t n = 0;  // cells scored: those whose truth is known and among the texts
  double accuracy = 0;
  double macro_f1 = 0;                         // mean F1 over the classes present in truth or prediction
  double balanced_accuracy = 0;                // mean recall over the classes present in the truth
  double coverage = 0;                         // share of the n cells that have a label
  size_t truth_outside_texts = 0;              // cells left out because no text describes their true class
  std::vector<std::string> labels;             // classes present in truth or prediction: order of the texts, then by name
  std::vector<std::vector<size_t>> confusion;  // [truth][prediction], both in the order of `labels`
  std::vector<ClassScores> per_class;
};

// truth, prediction: one per cell, "" = missing; cells without truth are left out. texts: the labels that could be given; empty: not known,
// then no truth is outside. DataError when no cell is left.
Metrics annotation_metrics(std::span<const std::string> truth, std::span<const std::string> prediction, std::span<const std::string> texts);

nlohmann::ordered_json to_json(const Metrics& metrics);
Metrics metrics_from_json(const nlohmann::ordered_json& json, const std::string& where);  // DataError naming `where` and the field

}  // namespace lc
