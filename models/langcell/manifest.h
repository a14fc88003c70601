// MANIFEST.json: every file of a model folder with its size and SHA-256. It is written last, so a folder that has one is complete.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace lc {

struct ManifestEntry {
  std::uint64_t size = 0;
  std::string sha256;
};
using Manifest = std::map<std::string, ManifestEntry>;  // by path relative to the folder, '/' between its parts

enum class Verify : std::uint8_t { sizes, hashes };

inline constexpr const char* kManifestName = "MANIFEST.json";

void write_manifest(const std::filesystem::path& folder);     // of all files below the folder
Manifest read_manifest(const std::filesystem::path& folder);  // ModelError when missing or damaged
void verify_manifest(const std::filesystem::path& folder, const Manifest& manifest,
                     Verify verify);  // ModelError naming the first file that differs
bool has_manifest(const std::filesystem::path& folder);

// What makes two models the same: SHA-256 over the names and hashes of weights, vocabularies and configurations; the card and trainer/ do
// not count. Files are hashed only where there is no manifest.
std::string content_hash(const std::filesystem::path& folder);

}  // namespace lc
