// obs and var of an .h5ad: the index and columns of every encoding that anndata 0.7 … 0.13 writes.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/hdf5.h"

namespace lc {

enum class Ordered : std::uint8_t { no, yes };

struct Categorical {
  std::vector<std::int32_t> codes;  // −1: missing
  std::vector<std::string> categories;
  Ordered ordered = Ordered::no;

  std::string label(size_t row) const { return codes[row] < 0 ? std::string() : categories[static_cast<size_t>(codes[row])]; }
};

Categorical categorical_of(const std::vector<std::string>& values);  // categories in sorted order, as pandas makes them; "" is missing

class Frame {
 public:
  explicit Frame(Hdf5 group);  // DataError for the compound tables of anndata ≤ 0.6

  std::uint64_t rows() const { return rows_; }
  std::vector<std::string> index() const;
  const std::string& index_name() const { return index_name_; }
  const std::vector<std::string>& columns() const { return columns_; }
  bool has(std::string_view column) const;
  // Any column as text: categories in the file's order; of other columns the distinct values (numbers ascending, text sorted).
  Categorical categorical(std::string_view column) const;
  std::vector<std::string> strings(std::string_view column) const;  // missing: ""
  std::vector<double> numbers(std::string_view column) const;       // missing: NaN; DataError for text
  const Hdf5& group() const { return group_; }

 private:
  Hdf5 member(std::string_view column) const;

  Hdf5 group_;
  std::string index_name_;
  std::vector<std::string> columns_;
  std::uint64_t rows_ = 0;
};

std::string encoding_of(const Hdf5& object);  // the attribute encoding-type, "" where the file has none

}  // namespace lc
