#include "tools/commands/run_facts.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "engine/folder_lock.h"
#include "models/langcell/manifest.h"
#include "train/options.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json json_of(const fs::path& path) {
  std::ifstream in(path);
  Json json = Json::parse(in, nullptr, false);
  return json.is_object() ? json : Json::object();
}
Json member(const Json& object, const char* key) { return object.contains(key) ? object[key] : Json(); }
double number(const Json& object, const char* key, double otherwise) {
  return object.contains(key) && object[key].is_number() ? object[key].get<double>() : otherwise;
}

std::string text(const Json& object, const char* key) {
  return object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : std::string();
}

// Lines of the log that are whole; the last may be half written, any may be damaged.
struct Lines {
  std::vector<Json> steps;
  Json validation;  // the last one
  explicit Lines(const fs::path& path) {
    std::ifstream in(path);
    for (std::string text; std::getline(in, text);) {
      Json line = Json::parse(text, nullptr, false);
      if (!line.is_object() || !line.contains("stage") || !line.contains("step")) continue;
      if (line.contains("event"))
        validation = std::move(line);
      else
        steps.push_back(std::move(line));
    }
  }
};

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }
double age(const fs::path& path) {
  std::error_code failed;
  const auto written = fs::last_write_time(path, failed);
  return failed ? 0 : std::chrono::duration<double>(fs::file_time_type::clock::now() - written).count();
}
std::string duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::lround(std::max(0.0, seconds)));
  if (s >= 86400) return fmt::format("{} d {} h", s / 86400, s % 86400 / 3600);
  if (s >= 3600) return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
  return s >= 60 ? fmt::format("{} min {:02} s", s / 60, s % 60) : fmt::format("{} s", s);
}

// Why the ranks ended, one line each; the code that counts is the first that is no stop on request.
struct Exits {
  Json reasons = Json::array();
  int code = 0;
  explicit Exits(const fs::path& folder) {
    std::error_code failed;
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder, failed)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
      const Json exit = json_of(file);
      if (!exit.contains("code")) continue;
      const int its = static_cast<int>(number(exit, "code", 0));
      if (code == 0 || code == kStopped) code = its;
      reasons.push_back(fmt::format("rank {}: exit {}: {}", number(exit, "rank", 0), its, text(exit, "reason")));
    }
  }
  static constexpr int kStopped = 75;
};

std::string state_of(const fs::path& run, const Exits& exits) {
  if (FolderLock::is_held(run)) return "running";
  if (has_manifest(run / "model")) return "finished";
  if (exits.code != 0 && exits.code != Exits::kStopped) return "failed";
  return "stopped";
}

// Steps of both stages: as the run wrote them down, else as its configuration has them.
std::optional<std::vector<std::int64_t>> stage_steps(const fs::path& run, const Json& manifest) {
  if (const Json steps = member(manifest, "steps"); steps.is_array() && steps.size() == 2 && steps[0].is_number() && steps[1].is_number())
    return std::vector<std::int64_t>{steps[0].get<std::int64_t>(), steps[1].get<std::int64_t>()};
  try {
    const Options o = read_options(run / "config.resolved.toml", {});
    if (o.stage1.epochs == 0 && o.stage2.epochs == 0) return std::vector<std::int64_t>{o.stage1.steps, o.stage2.steps};
  } catch (const Error&) {}
  return {};
}

// Seconds of a step lately: by the clock between the last lines of this stage where they say it, validation and checkpoints included.
double seconds_per_step(const std::vector<Json>& steps) {
  constexpr std::size_t kLately = 20;
  const Json& last = steps.back();
  std::size_t first = steps.size() - 1;
  while (first > 0 && steps.size() - first < kLately && steps[first - 1]["stage"] == last["stage"]) --first;
  const double done = number(last, "step", 0) - number(steps[first], "step", 0);
  const double took = number(last, "time", 0) - number(steps[first], "time", 0);
  return done > 0 && took > 0 ? took / done : number(last, "step_s", 0);
}

void add_progress(const fs::path& run, const Json& manifest, const std::string& state, Json& facts) {
  const Lines log(run / "train.jsonl");
  if (log.steps.empty()) return;
  const Json& last = log.steps.back();
  const auto steps = stage_steps(run, manifest);
  const auto stage = static_cast<std::int64_t>(number(last, "stage", 1)), step = static_cast<std::int64_t>(number(last, "step", 0));
  facts["stage"] = stage, facts["step"] = step;
  if (steps && (stage == 1 || stage == 2)) {
    const std::int64_t total = (*steps)[0] + (*steps)[1], done = step + (stage == 2 ? (*steps)[0] : 0);
    facts["steps"] = (*steps)[static_cast<std::size_t>(stage - 1)], facts["done"] = fmt::format("{} of {} steps", done, total);
    const double each = seconds_per_step(log.steps);
    facts["seconds_per_step"] = each;
    if (state == "running") {
      const double left = each * static_cast<double>((*steps)[static_cast<std::size_t>(stage - 1)] - step);
      facts["eta_s"] = std::max(0.0, left - (now() - number(last, "time", now())));
      facts["eta"] = duration(facts["eta_s"]) + (stage == 1 && (*steps)[1] > 0 ? ", of stage 1; stage 2 comes then" : "");
    }
  }
  for (const char* key : {"loss", "mgm", "cell_cell", "cell_text", "matching", "samples_per_s", "tokens_per_s", "imbalance"}) {
    if (const Json value = member(last, key); !value.is_null()) facts[key] = value;
  }
  if (const double written = number(last, "time", 0); written > 0) facts["last_line_age_s"] = std::max(0.0, now() - written);
  facts["last_line"] = last;
  if (!log.validation.is_null()) facts["validation"] = log.validation;
}

void add_checkpoints(const fs::path& run, Json& facts) {
  std::vector<std::string> names;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", failed)) {
    if (has_manifest(entry.path()) && entry.path().filename().string().find(".partial-") == std::string::npos)
      names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  facts["checkpoints"] = names;
  if (names.empty()) return;
  facts["last_checkpoint"] = names.back();
  facts["last_checkpoint_age_s"] = age(run / "checkpoints" / names.back() / "MANIFEST.json");
  facts["last_checkpoint_age"] = duration(facts["last_checkpoint_age_s"]);
}

}  // namespace

Json run_facts(const fs::path& run) {
  const Exits exits(run / "exits");
  const std::string state = state_of(run, exits);
  const Json manifest = json_of(run / "manifest.json");
  Json facts{{"what", "run folder"}, {"state", state}, {"finished", state == "finished"}};
  if (!exits.reasons.empty() && state != "running" && state != "finished") facts["exits"] = exits.reasons;
  add_progress(run, manifest, state, facts);
  add_checkpoints(run, facts);
  for (const char* key : {"ranks", "device", "precision", "version"}) facts[key] = member(manifest, key);
  std::ifstream config(run / "config.resolved.toml", std::ios::binary);
  facts["config_sha256"] = sha256_of(std::string(std::istreambuf_iterator<char>(config), {}));
  return facts;
}

}  // namespace lc
