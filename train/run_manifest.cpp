#include "train/run_manifest.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>

#include "engine/atomic_file.h"
#include "engine/build.h"
#include "engine/errors.h"
#include "engine/machine.h"

namespace lc {
namespace {

std::filesystem::path file_in(const std::filesystem::path& run) { return run / "manifest.json"; }

// What is compared has the types it was written with.
bool is_whole(const nlohmann::json& json) {
  const auto text = [](const nlohmann::json& object, const char* key) { return !object.contains(key) || object[key].is_string(); };
  if (!json.is_object() || !text(json, "device") || !text(json, "instruction_set")) return false;
  const auto data = json.find("data");
  return data == json.end() || (data->is_array() && std::all_of(data->begin(), data->end(), [&](const nlohmann::json& corpus) {
                                  return corpus.is_object() && text(corpus, "content_sha256");
                                }));
}

}  // namespace

void write_run_manifest(const std::filesystem::path& run, const RunManifest& facts, const Dataset& data) {
  nlohmann::ordered_json corpora = nlohmann::ordered_json::array();
  for (const Corpus& c : data.corpora())
    corpora.push_back({{"file", c.path().string()}, {"content_sha256", c.content_hash()}, {"cells", c.cells()}, {"tokens", c.tokens()}});
  const nlohmann::ordered_json manifest = {{"version", build::kVersion},
                                           {"build", fmt::format("{}, {}", build::kCompiler, build::kType)},
                                           {"device", facts.device},
                                           {"instruction_set", instruction_set()},
                                           {"threads", omp_get_max_threads()},
                                           {"ranks", facts.ranks},
                                           {"precision", facts.precision},
                                           {"steps", facts.steps},
                                           {"gene_vocabulary", data.vocabulary().hash()},
                                           {"data", corpora}};
  write_file(file_in(run), manifest.dump(2) + "\n");
}

nlohmann::json read_run_manifest(const std::filesystem::path& run, const std::function<void(const std::string&)>& warn) {
  if (std::error_code absent; !std::filesystem::exists(file_in(run), absent)) return {};
  nlohmann::json json = nlohmann::json::parse(read_file(file_in(run)), nullptr, false);
  if (is_whole(json)) return json;
  warn(fmt::format("{}: is damaged, so nobody can tell whether data and machine are those this run began with", file_in(run).string()));
  return {};
}

void compare_run_manifest(const nlohmann::json& earlier, const std::string& device, const Dataset& data,
                          const std::function<void(const std::string&)>& warn) {
  if (!earlier.is_object()) return;
  const nlohmann::json before = earlier.value("data", nlohmann::json::array());
  if (!before.empty() && before.size() != data.corpora().size())
    throw UsageError(fmt::format("data.corpus: {} corpora, this run began with {}; give those, or start another run", data.corpora().size(),
                                 before.size()));
  for (std::size_t i = 0; i < data.corpora().size() && i < before.size(); ++i) {
    if (before[i].value("content_sha256", "") == data.corpora()[i].content_hash()) continue;
    throw UsageError(
        fmt::format("data.corpus: {} is not the corpus this run began with (its content hash differs); give that one, or start another run",
                    data.corpora()[i].path().string()));
  }
  for (const auto& [key, now] : {std::pair<const char*, std::string>{"device", device}, {"instruction_set", instruction_set()}}) {
    const std::string was = earlier.value(key, now);
    if (was == now) continue;
    warn(fmt::format("{}: this run began with {} and continues with {}: results agree to rounding, not to the bit", key, was, now));
    break;
  }
}

}  // namespace lc
