// The counts of a file (.h5ad, or of 10x: .h5, MTX folder): which matrix they are, whose genes they are, read by blocks of cells. What is
// decided is said in notes().
#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tools/anndata/cells.h"
#include "tools/anndata/genes.h"
#include "tools/anndata/matrix.h"
#include "tools/anndata/survey.h"
#include "tools/anndata/tenx.h"

namespace lc {

struct CountsOptions {
  std::string layer = {};  // only this one: "X", "raw/X" or the name of a layer; empty: raw/X, layers/counts …, X
  FractionalCounts fractional = FractionalCounts::refuse;
  GeneRules genes = {};
  TenXOptions tenx = {};
};

class CountMatrix {
 public:
  std::uint64_t n_cells() const { return matrix_->cells(); }
  std::uint64_t n_genes() const { return matrix_->genes(); }
  const std::string& path() const { return path_; }
  const std::string& source() const { return source_; }                        // "raw/X"
  const std::vector<std::string>& gene_ids() const { return genes_.ids; }      // per column, Ensembl without version; columns may share one
  const std::vector<std::string>& gene_names() const { return genes_.names; }  // "" where the file has none
  const std::vector<double>& gene_totals() const { return totals_; }           // over all cells, per column
  const std::vector<std::string>& notes() const { return notes_; }             // what was decided, one line each
  const std::vector<std::string>& warnings() const { return warnings_; }

  CsrBlock read_rows(std::uint64_t begin, std::uint64_t end) const;
  template <class F>
  void for_each_block(std::uint64_t rows, F&& f) const {  // f(CsrBlock&&), in order
    for (std::uint64_t begin = 0; begin < n_cells(); begin += rows) f(read_rows(begin, std::min(begin + rows, n_cells())));
    require_unchanged();
  }
  void require_unchanged() const {  // DataError when the file was written to since it was opened
    if (file_) file_->require_unchanged();
  }

  const CellTable& cells() const { return cells_; }
  bool from_anndata() const { return from_anndata_; }

 private:
  friend CountMatrix open_counts(const std::filesystem::path& path, const CountsOptions& options);
  CountMatrix(std::string path, CellTable cells) : path_(std::move(path)), cells_(std::move(cells)) {}
  static CountMatrix of_anndata(const std::filesystem::path& path, const CountsOptions& options);
  static CountMatrix of_tenx(const std::filesystem::path& path, const CountsOptions& options);
  void name_genes(const GeneTable& table, const CountsOptions& options);

  std::string path_, source_;
  std::optional<Hdf5> file_;
  CellTable cells_;
  bool from_anndata_ = true;
  std::shared_ptr<const CellMatrix> matrix_;
  GeneIds genes_;
  std::vector<double> totals_;
  std::vector<std::string> notes_, warnings_;
};

// Reads every value of the chosen matrix once. DataError: no cells, nothing that is counts (with the reason for each candidate), foreign
// genes.
CountMatrix open_counts(const std::filesystem::path& path, const CountsOptions& options = {});

CellTable open_cells(const std::filesystem::path& path, const TenXOptions& options = {});  // before --min-counts leaves any out

// How much of the file a vocabulary (Ensembl ids) knows.
Coverage coverage(const CountMatrix& counts, std::span<const std::string> vocabulary);

}  // namespace lc
