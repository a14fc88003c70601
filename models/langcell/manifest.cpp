#include "models/langcell/manifest.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <system_error>

#include "engine/atomic_file.h"
#include "models/langcell/json_file.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

// The files below a folder, by their relative names, in order; the manifest itself is none of them.
std::map<std::string, fs::path> files_below(const fs::path& folder) {
  std::map<std::string, fs::path> files;
  std::error_code failure;
  fs::recursive_directory_iterator entry(folder, failure);
  for (const fs::recursive_directory_iterator end; !failure && entry != end; entry.increment(failure)) {
    if (!entry->is_regular_file()) continue;
    const std::string name = entry->path().lexically_relative(folder).generic_string();
    if (name != kManifestName) files.emplace(name, entry->path());
  }
  if (failure) throw ModelError(fmt::format("{}: cannot be read: {}; check the path", folder.string(), failure.message()));
  return files;
}

// Hashes are only believed of files inside the folder.
bool stays_inside(const std::string& name) {
  const fs::path path(name);
  if (path.empty() || path.is_absolute()) return false;
  for (const fs::path& part : path) {
    if (part == "..") return false;
  }
  return true;
}

}  // namespace

bool has_manifest(const fs::path& folder) { return is_file(folder / kManifestName); }

void write_manifest(const fs::path& folder) {
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
  for (const auto& [name, path] : files_below(folder)) files[name] = {{"size", fs::file_size(path)}, {"sha256", sha256_of_file(path)}};
  const nlohmann::ordered_json manifest{{"format", "langcell manifest"}, {"version", 1}, {"files", files}};
  write_file(folder / kManifestName, manifest.dump(2) + "\n");
}

Manifest read_manifest(const fs::path& folder) {
  const JsonFile file(folder / kManifestName);
  Manifest manifest;
  const JsonFile files = file.object("files");
  for (const std::string& name : files.keys()) {
    const JsonFile entry = files.object(name);
    if (!stays_inside(name))
      throw ModelError(fmt::format("{}: the name points outside the folder; take a complete copy of the model folder", entry.where()));
    manifest[name] = {entry.get<std::uint64_t>("size"), entry.get<std::string>("sha256")};
  }
  return manifest;
}

void verify_manifest(const fs::path& folder, const Manifest& manifest, Verify verify) {
  const auto refuse = [&](const std::string& name, const std::string& why) {
    throw ModelError(fmt::format("{}: {}; the folder is damaged or incomplete: take a complete copy", (folder / name).string(), why));
  };
  for (const auto& [name, entry] : manifest) {
    std::error_code failure;
    const fs::path file = folder / name;
    const std::uint64_t size = fs::file_size(file, failure);
    if (failure) refuse(name, fmt::format("wanted {} bytes as {} says, got {}", entry.size, kManifestName, failure.message()));
    if (size != entry.size) refuse(name, fmt::format("wanted {} bytes as {} says, got {}", entry.size, kManifestName, size));
    if (verify == Verify::hashes && as_model_error([&] { return sha256_of_file(file); }) != entry.sha256) {
      refuse(name, fmt::format("its SHA-256 is not the one in {}", kManifestName));
    }
  }
}

std::string content_hash(const fs::path& folder) {
  std::map<std::string, std::string> hashes;
  const auto counts = [](const std::string& name) { return name != "MODEL_CARD.md" && !name.starts_with("trainer/"); };
  if (has_manifest(folder)) {
    for (const auto& [name, entry] : read_manifest(folder)) {
      if (counts(name)) hashes[name] = entry.sha256;
    }
  } else {
    for (const auto& file : files_below(folder)) {
      if (counts(file.first)) hashes[file.first] = as_model_error([&] { return sha256_of_file(file.second); });
    }
  }
  std::string lines;
  for (const auto& [name, hash] : hashes) lines += name + ' ' + hash + '\n';
  return sha256_of(lines);
}

}  // namespace lc
