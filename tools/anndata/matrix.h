// A cells × genes matrix read by blocks of cells, whatever it is stored as. Another source (10x, a guarded reader) is another CellMatrix.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/hdf5.h"
#include "models/langcell/data/count_block.h"

namespace lc {

struct CsrBlock {                     // some cells; every row sorted by gene, without zeros, entries of one gene summed
  std::uint64_t first = 0;            // number of the first cell
  std::vector<std::int64_t> offsets;  // cells + 1, from 0
  std::vector<std::int32_t> genes;
  std::vector<float> values;

  size_t rows() const { return offsets.empty() ? 0 : offsets.size() - 1; }
  std::span<const std::int32_t> genes_of(size_t row) const {
    return std::span(genes).subspan(begin_of(row), begin_of(row + 1) - begin_of(row));
  }
  std::span<const float> values_of(size_t row) const { return std::span(values).subspan(begin_of(row), begin_of(row + 1) - begin_of(row)); }
  size_t begin_of(size_t row) const { return static_cast<size_t>(offsets[row]); }
  CountBlock view() const { return {offsets, genes, values}; }  // what tokenizers take
};

class CellMatrix {
 public:
  virtual ~CellMatrix() = default;
  virtual CsrBlock read_rows(std::uint64_t begin, std::uint64_t end) const = 0;
  std::uint64_t cells() const { return cells_; }
  std::uint64_t genes() const { return genes_; }
  const std::string& form() const { return form_; }  // "CSR", "CSC", "dense"

 protected:
  CellMatrix(std::uint64_t cells, std::uint64_t genes, std::string form) : cells_(cells), genes_(genes), form_(std::move(form)) {}

 private:
  std::uint64_t cells_, genes_;
  std::string form_;
};

// object: a csr_matrix or csc_matrix group or a dense dataset, of any numeric type. CSR and dense stream; CSC is turned in memory (8 bytes
// an entry) at the first read.
std::unique_ptr<CellMatrix> open_matrix(const Hdf5& object);

struct SparseShape {
  std::uint64_t rows, columns;
};
std::unique_ptr<CellMatrix> open_csr(const Hdf5& group,
                                     SparseShape shape);  // data, indices, indptr by cell, whatever the group calls itself
void tidy(CsrBlock& block);                               // rows in any order, with zeros and repeats, to what CsrBlock promises
bool is_csc(const Hdf5& group);
SparseShape sparse_shape(const Hdf5& group);  // also of anndata ≤ 0.7's h5sparse groups

}  // namespace lc
