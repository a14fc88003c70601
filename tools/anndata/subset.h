// Some cells of an .h5ad as a file of their own: every matrix, column and encoding as in the input, cut to the chosen rows.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "engine/atomic_file.h"

namespace lc {

// rows: ascending, each once. X, layers, raw/X, obs, obsm keep these rows, obsp rows and columns; var, varm, varp, uns are copied.
// Returns what was left out, one line each: objects of a kind that cannot be cut (awkward arrays).
std::vector<std::string> write_cells_of(const std::filesystem::path& input, std::span<const std::uint64_t> rows,
                                        const std::filesystem::path& output, Existing existing);

}  // namespace lc
