// manifest.json of a run folder: the program, the machine and the data that a run was begun with, to compare a resumed run with.
#pragma once
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "train/dataset.h"

namespace lc {

struct RunManifest {
  std::string device, precision;
  int ranks = 1;
  std::int64_t steps[2] = {};  // of the stages
};

void write_run_manifest(const std::filesystem::path& run, const RunManifest& facts, const Dataset& data);

// What the run in this folder began with; null: nothing, or a damaged file, of which `warn` is told.
nlohmann::json read_run_manifest(const std::filesystem::path& run, const std::function<void(const std::string&)>& warn);

// UsageError where the data differ; `warn` is told when the machine computes with other instructions.
void compare_run_manifest(const nlohmann::json& earlier, const std::string& device, const Dataset& data,
                          const std::function<void(const std::string&)>& warn);

}  // namespace lc
