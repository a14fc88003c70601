// The training part of a report, read from a run folder: loss curves of train.jsonl, the resolved configuration, the manifest.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tools/report/data_summary.h"

namespace lc::report {

struct LoggedStep {
  int stage = 0;
  double step = 0;                       // within the stage
  std::map<std::string, double> values;  // every other number of the line: loss, mgm, cell_cell, …; null is left out
};

struct TrainingLog {
  std::vector<LoggedStep> steps, validations;
};

// A cut last line (the run was killed while writing) is left out; any other line that is no JSON object is a DataError with its number.
TrainingLog parse_training_log(std::string_view lines, const std::string& where);

struct RunFolder {  // NOLINT(bugprone-exception-escape): its JSON moves without throwing
  std::filesystem::path path;
  std::string name;
  TrainingLog log;
  std::string config;       // config.resolved.toml, "" when missing
  nlohmann::json manifest;  // manifest.json, null when missing
};
bool is_run_folder(const std::filesystem::path& path);
RunFolder read_run_folder(const std::filesystem::path& path);  // DataError when it is no run folder

std::vector<DataSummary> training_data(const RunFolder& run);  // of each corpus that the configuration names and that is still there
std::string training_section(const TrainingLog& log);
std::string provenance_section(const RunFolder& run);  // configuration and machine
std::string run_sections(const RunFolder& run);        // all of the above
void write_run_report(const std::filesystem::path& run, const std::filesystem::path& out);

}  // namespace lc::report
