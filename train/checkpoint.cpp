#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <system_error>

#include "engine/atomic_file.h"
#include "models/langcell/json_file.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

constexpr int kFormatVersion = 1;

struct Named {  // a folder that is called like a checkpoint
  int stage;
  std::int64_t step;
  fs::path path;
};

// The newest first, by stage and step: clocks and the order of a folder's entries say nothing.
std::vector<Named> checkpoints_in(const fs::path& folder) {
  static const std::regex pattern("stage([0-9])-step-([0-9]{8,18})");
  std::vector<Named> found;
  std::error_code ignored;
  for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored)) {
    std::smatch match;
    const std::string name = entry->path().filename().string();
    if (std::regex_match(name, match, pattern)) found.push_back({std::stoi(match[1]), std::stoll(match[2]), entry->path()});
  }
  std::sort(found.begin(), found.end(),
            [](const Named& a, const Named& b) { return std::pair(a.stage, a.step) > std::pair(b.stage, b.step); });
  return found;
}

void write_moments(const fs::path& path, const CheckpointContents& c, const ParameterSnapshot& numbers) {
  std::vector<TensorToStore> tensors;
  for (const NamedParameter& p : c.model.parameters().named()) {
    if (!in_parts(p, c.parts)) continue;
    for (const auto& [name, moment] : {std::pair{"moment1.", numbers.moment1(p)}, {"moment2.", numbers.moment2(p)}})
      tensors.push_back({name + p.name, StoredType::f32, stored_shape(p.shape), std::as_bytes(moment)});
  }
  write_safetensors(path, std::move(tensors));
}

void write_state(const fs::path& path, const TrainerState& s) {
  const nlohmann::ordered_json json{{"format", "langcell trainer"},
                                    {"version", kFormatVersion},
                                    {"stage", s.stage},
                                    {"step", s.step},
                                    {"seed", s.seed},
                                    {"ranks", s.ranks}};
  write_file(path, json.dump(2) + "\n");
}

}  // namespace

std::string checkpoint_name(int stage, std::int64_t step) { return fmt::format("stage{}-step-{:08}", stage, step); }

fs::path write_checkpoint(const fs::path& checkpoints, const CheckpointContents& contents, const ParameterSnapshot& numbers,
                          std::int64_t keep) {
  std::error_code failure;
  fs::create_directories(checkpoints, failure);  // what goes wrong is said by what is written there
  const fs::path path = checkpoints / checkpoint_name(contents.state.stage, contents.state.step);
  AtomicFolder folder(path, Existing::replace);
  const fs::path& partial = folder.partial_path();
  write_model(partial, contents.model, contents.facts, contents.parts, [&](const NamedParameter& p) {
    return HostNumbers{numbers.master(p), {}};
  });
  fs::create_directory(partial / "trainer", failure);
  write_state(partial / "trainer" / "state.json", contents.state);
  write_moments(partial / "trainer" / "moments.safetensors", contents, numbers);
  write_file(partial / "trainer" / "config.resolved.toml", contents.config);
  write_manifest(partial);
  folder.commit();
  verify_manifest(path, read_manifest(path), Verify::hashes);
  const std::vector<Named> all = checkpoints_in(checkpoints);
  for (std::size_t i = static_cast<std::size_t>(std::max<std::int64_t>(keep, 1)); i < all.size(); ++i) {
    if (all[i].path != path) fs::remove_all(all[i].path, failure);
  }
  return path;
}

FoundCheckpoint newest_checkpoint(const fs::path& checkpoints) {
  FoundCheckpoint found;
  for (const Named& candidate : checkpoints_in(checkpoints)) {
    try {
      verify_manifest(candidate.path, read_manifest(candidate.path), Verify::hashes);
      const TrainerState state = read_trainer_state(candidate.path);
      if (state.stage != candidate.stage || state.step != candidate.step) {
        throw ModelError(fmt::format("{}: its state is of {}", candidate.path.string(), checkpoint_name(state.stage, state.step)));
      }
      found.path = candidate.path;
      return found;
    } catch (const ModelError& error) {
      found.warnings.push_back(fmt::format("checkpoint {} is skipped: {}", candidate.path.filename().string(), error.what()));
    }
  }
  return found;
}

TrainerState read_trainer_state(const fs::path& checkpoint) {
  const JsonFile file(checkpoint / "trainer" / "state.json");
  file.between<std::int64_t>("version", 1, kFormatVersion);
  TrainerState state;
  state.stage = static_cast<int>(file.between<std::int64_t>("stage", 1, 2)),
  state.step = file.between<std::int64_t>("step", 0, std::int64_t{1} << 48);
  state.seed = file.get<std::uint64_t>("seed"), state.ranks = static_cast<int>(file.between<std::int64_t>("ranks", 1, 1 << 20));
  return state;
}

std::string read_checkpoint_config(const fs::path& checkpoint) {
  return as_model_error([&] { return read_file(checkpoint / "trainer" / "config.resolved.toml"); });
}

void restore(const fs::path& checkpoint, LangCell& model) {
  read_weights(checkpoint, model, Missing::keep);
  Parameters& parameters = model.parameters();
  const SafetensorsReader reader(checkpoint / "trainer" / "moments.safetensors");
  const LangCell::Parts saved = parts_in(checkpoint);
  std::vector<WantedTensor> wanted;
  std::vector<const NamedParameter*> present;
  for (const NamedParameter& p : parameters.named()) {
    if (!in_parts(p, saved)) continue;
    for (const char* moment : {"moment1.", "moment2."}) wanted.push_back({moment + p.name, p.shape});
    present.push_back(&p);
  }
  require_tensors(reader.path().string(), reader.tensors(), wanted);
  for (const NamedParameter* p : present) {
    parameters.put(parameters.moment1(*p), *p, [&](std::span<float> m) { reader.read("moment1." + p->name, m); });
    parameters.put(parameters.moment2(*p), *p, [&](std::span<float> m) { reader.read("moment2." + p->name, m); });
  }
}

}  // namespace lc
