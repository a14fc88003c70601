// What a command may write to. All throw UsageError (2) before anything is touched.
#pragma once
#include <filesystem>
#include <span>

namespace lc {

// The output is none of the inputs, by whatever path, and no folder that one of them lies in. Empty inputs are not given.
void require_not_an_input(const std::filesystem::path& out, std::span<const std::filesystem::path> inputs);

enum class Overwrite : bool { no, yes };
void require_new(const std::filesystem::path& out, Overwrite overwrite, const char* option = "--out");  // there is nothing, or --overwrite

// --overwrite replaces what this program wrote, known by the file `sign` in it, and never a folder of something else.
void require_ours(const std::filesystem::path& folder, const std::filesystem::path& sign, const char* option);

}  // namespace lc
