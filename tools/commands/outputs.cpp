#include "tools/commands/outputs.h"

#include <fmt/format.h>

#include "engine/errors.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

bool lies_in(const fs::path& input, const fs::path& folder) {
  std::error_code absent;
  for (fs::path at = fs::canonical(input, absent); !absent && at.has_relative_path(); at = at.parent_path()) {
    if (fs::equivalent(at, folder, absent)) return true;
    absent.clear();
  }
  return false;
}

}  // namespace

void require_not_an_input(const fs::path& out, std::span<const fs::path> inputs) {
  for (const fs::path& input : inputs) {
    std::error_code absent;
    if (input.empty() || !fs::exists(out, absent)) continue;
    if (fs::equivalent(input, out, absent))
      throw UsageError(fmt::format("{}: the output is one of the inputs; inputs are never changed", out.string()));
    if (fs::is_directory(out, absent) && lies_in(input, out))
      throw UsageError(fmt::format("{}: the input {} lies in this output folder, which would be replaced; choose another output",
                                   out.string(), input.string()));
  }
}

void require_new(const fs::path& out, Overwrite overwrite, const char* option) {
  std::error_code unknown;
  if (overwrite == Overwrite::no && !out.empty() && fs::exists(out, unknown))
    throw UsageError(fmt::format("{}: exists already; choose another {} or add --overwrite", out.string(), option));
}

void require_ours(const fs::path& folder, const fs::path& sign, const char* option) {
  std::error_code failed;
  if (!fs::exists(folder, failed) || (fs::is_directory(folder, failed) && fs::is_empty(folder, failed)) ||
      fs::exists(folder / sign, failed))
    return;
  throw UsageError(fmt::format("{}: is nothing this command wrote ({} is missing), so it is not replaced; choose another {}",
                               folder.string(), sign.string(), option));
}

}  // namespace lc
