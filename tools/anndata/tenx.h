// Files of 10x Genomics' Cell Ranger (and STARsolo): the .h5 of version 2 (a group for each genome) and 3 (/matrix), and the folder of
// matrix.mtx, features.tsv or genes.tsv, barcodes.tsv, each plain or .gz. Cells are the columns there; here they are rows, as everywhere.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tools/anndata/matrix.h"

namespace lc {

struct TenXOptions {
  std::string genome = {};       // which one, where there are several
  std::int64_t min_counts = -1;  // cells with fewer counts are left out; < 0: not asked for
};

struct TenX {
  std::vector<std::string> barcodes, ids, names;  // of the cells; of the genes
  std::shared_ptr<const CellMatrix> matrix;
  std::string where;               // of the genes, for messages
  std::vector<std::string> notes;  // what was left out
};

bool is_tenx(const std::filesystem::path& path);  // a folder, or an .h5 of either version
// DataError: several genomes and none chosen (they are listed), an unfiltered matrix without min_counts, damaged files.
TenX open_tenx(const std::filesystem::path& path, const TenXOptions& options);
std::filesystem::path counts_file(const std::filesystem::path& path);  // of a folder its matrix.mtx, else the file itself
std::vector<std::string> tenx_barcodes(const std::filesystem::path& path, const std::string& genome);

}  // namespace lc
