// The cells of a file by name, with whatever columns it has: obs of an .h5ad, or barcodes alone.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/anndata/frame.h"

namespace lc {

class CellTable {
 public:
  explicit CellTable(Frame obs);
  CellTable(std::string where, std::vector<std::string> names);  // no columns

  std::uint64_t rows() const { return rows_; }
  std::vector<std::string> names() const { return names(0, rows_); }
  std::vector<std::string> names(std::uint64_t begin, std::uint64_t end) const;
  const std::vector<std::string>& columns() const;
  bool has(std::string_view column) const { return obs_ && obs_->has(column); }
  Categorical categorical(std::string_view column) const;  // DataError listing the columns there are
  std::vector<double> numbers(std::string_view column) const;

 private:
  const Frame& with(std::string_view column) const;

  std::string where_;
  std::optional<Frame> obs_;
  std::optional<Hdf5> index_;       // read by blocks where the file allows it
  std::vector<std::string> names_;  // else
  std::uint64_t rows_ = 0;
};

}  // namespace lc
