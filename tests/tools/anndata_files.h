// Small .h5ad files made by hand, in forms that our own writer does not produce.
#pragma once
#include <fmt/format.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "engine/hdf5.h"
#include "tools/anndata/elements.h"

namespace lc::test {

struct Table {  // cells × genes, dense
  std::uint64_t cells = 0, genes = 0;
  std::vector<float> values;
  float& at(std::uint64_t cell, std::uint64_t gene) { return values[cell * genes + gene]; }
  float at(std::uint64_t cell, std::uint64_t gene) const { return values[cell * genes + gene]; }
};

inline Table random_counts(std::uint64_t cells, std::uint64_t genes, unsigned seed = 1) {
  std::mt19937 chance(seed);
  Table table{cells, genes, {}};
  for (std::uint64_t i = 0; i < cells * genes; ++i) {
    const auto high = static_cast<float>(1 + chance() % 40);
    table.values.push_back(chance() % 3 != 0 ? 0.0f : chance() % 2 == 0 ? 1.0f : high);  // ones are most frequent, as in cells
  }
  return table;
}

inline std::string gene_id(std::uint64_t gene) { return fmt::format("ENSG{:011}", gene); }

inline std::vector<std::string> gene_ids(std::uint64_t genes) {
  std::vector<std::string> ids;
  for (std::uint64_t gene = 0; gene < genes; ++gene) ids.push_back(gene_id(gene));
  return ids;
}

inline std::vector<std::string> cell_names(std::uint64_t cells) {
  std::vector<std::string> names;
  for (std::uint64_t cell = 0; cell < cells; ++cell) names.push_back(fmt::format("cell{}", cell));
  return names;
}

// obs and var, no matrix yet.
inline Hdf5 start_h5ad(const std::filesystem::path& path, std::uint64_t cells, const std::vector<std::string>& var_index) {
  Hdf5 file = Hdf5::create(path);
  mark(file, "anndata");
  write_frame(file, "obs", cell_names(cells));
  write_frame(file, "var", var_index);
  return file;
}

enum class Axis { cells, genes };  // which axis comes first: CSR or CSC

template <class Value = float, class Index = std::int32_t>
void put_sparse(const Hdf5& file, const std::string& path, const Table& table, Axis major = Axis::cells, const H5Storage& storage = {}) {
  const std::uint64_t majors = major == Axis::cells ? table.cells : table.genes, minors = major == Axis::cells ? table.genes : table.cells;
  std::vector<Value> data;
  std::vector<Index> indices, indptr{0};
  for (std::uint64_t i = 0; i < majors; ++i) {
    for (std::uint64_t j = 0; j < minors; ++j) {
      const float value = major == Axis::cells ? table.at(i, j) : table.at(j, i);
      if (value == 0) continue;
      data.push_back(static_cast<Value>(value));
      indices.push_back(static_cast<Index>(j));
    }
    indptr.push_back(static_cast<Index>(data.size()));
  }
  const Hdf5 group = file.group(path);
  group.set("encoding-type", major == Axis::cells ? "csr_matrix" : "csc_matrix");
  group.set("encoding-version", "0.1.0");
  group.set("shape", std::vector<std::int64_t>{static_cast<std::int64_t>(table.cells), static_cast<std::int64_t>(table.genes)});
  group.write<Value>("data", data, storage);
  group.write<Index>("indices", indices, storage);
  group.write<Index>("indptr", indptr, storage);
}

template <class Value = float>
void put_dense(const Hdf5& file, const std::string& path, const Table& table, const H5Storage& storage = {}) {
  const std::vector<Value> values(table.values.begin(), table.values.end());
  mark(file.write<Value>(path, values, {table.cells, table.genes}, storage), "array");
}

}  // namespace lc::test
