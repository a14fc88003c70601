// What evaluation and reports read from .h5ad files: labels, the results of `annotate`, counts with their genes.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/hdf5.h"
#include "tools/evaluation/sparse_counts.h"

namespace lc {

using LabelMap = std::map<std::string, std::string>;
// Two columns: label in the file, label of the texts; lines that begin with # are skipped.
LabelMap read_label_map(const std::filesystem::path& tsv);

// A column of obs as labels, renamed by the map; "" = missing. DataError listing the columns there are.
std::vector<std::string> read_labels(const std::filesystem::path& file, const std::string& column, const LabelMap& renamed);

struct AnnotatedFile {                         // NOLINT(bugprone-exception-escape): its JSON moves without throwing
  std::vector<std::string> names, prediction;  // per cell
  std::vector<std::string> categories;         // of the column, in its order; tools that cut a file drop those no cell has
  std::vector<std::string> texts;              // all labels that could be given, as `annotate` noted; empty: not known
  std::vector<double> score;                   // per cell, or empty
  std::vector<float> z;                        // (cells × width), or empty
  size_t width = 0;
  std::vector<bool> marked;                             // per cell: unassigned
  size_t unassigned = 0;                                // as `annotate` marked them; without its column: cells without a label
  std::vector<std::pair<std::string, size_t>> reasons;  // of the unassigned
  nlohmann::json uns;                                   // what `annotate` said about itself; null when it is not there
};
// prediction: the column to judge; "P_label" or "P_label_final" finds P_score, P_unassigned, obsm/X_P and uns/P beside it.
AnnotatedFile read_annotated(const std::filesystem::path& file, const std::string& prediction);

struct NamedCounts {
  SparseCounts counts;
  std::vector<std::string> genes;  // Ensembl id per column
};
NamedCounts read_counts(const std::filesystem::path& file);

nlohmann::json read_json(const Hdf5& object);  // a dictionary of uns: groups, strings, numbers, arrays of these; other things are left out

}  // namespace lc
