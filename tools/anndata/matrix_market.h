// A MatrixMarket coordinate file of genes × cells (NIST, "Matrix Market exchange formats"), as Cell Ranger and STARsolo write it: 1-based,
// entries in any order, repeated ones summed.
#pragma once
#include <filesystem>
#include <memory>

#include "tools/anndata/matrix.h"

namespace lc {

// cells × genes, held in memory at 8 bytes an entry. DataError with the line: another kind of file, wrong number of entries, an index
// outside, a value that is no number.
std::unique_ptr<CellMatrix> read_matrix_market(const std::filesystem::path& path);

}  // namespace lc
