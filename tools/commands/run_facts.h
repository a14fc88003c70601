// What a run folder tells of its run, also while it runs: state, progress, speed, time left, last checkpoint.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace lc {

// Reads only. What is missing, half written or damaged is null, never an error: a look at a run must not depend on its health.
nlohmann::ordered_json run_facts(const std::filesystem::path& run);

}  // namespace lc
