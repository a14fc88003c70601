#include "tools/anndata/cells.h"

#include <fmt/format.h>

#include "engine/errors.h"

namespace lc {

CellTable::CellTable(Frame obs) : where_(obs.group().where()), obs_(std::move(obs)), rows_(obs_->rows()) {
  const Hdf5 index = obs_->group().at(obs_->index_name());
  if (index.is_dataset() && index.kind() == H5Kind::text)
    index_ = index;
  else
    names_ = obs_->index();
}
CellTable::CellTable(std::string where, std::vector<std::string> names)
    : where_(std::move(where)), names_(std::move(names)), rows_(names_.size()) {}

std::vector<std::string> CellTable::names(std::uint64_t begin, std::uint64_t end) const {
  if (index_) return index_->read_strings(begin, end);
  return {names_.begin() + static_cast<std::ptrdiff_t>(begin), names_.begin() + static_cast<std::ptrdiff_t>(end)};
}

const std::vector<std::string>& CellTable::columns() const {
  static const std::vector<std::string> none;
  return obs_ ? obs_->columns() : none;
}

const Frame& CellTable::with(std::string_view column) const {
  if (!obs_) throw DataError(fmt::format("{}: no column '{}': files of this kind hold cells without columns", where_, column));
  if (!obs_->has(column)) throw DataError(fmt::format("{}: no column '{}'; there are: {}", where_, column, fmt::join(columns(), ", ")));
  return *obs_;
}
Categorical CellTable::categorical(std::string_view column) const { return with(column).categorical(column); }
std::vector<double> CellTable::numbers(std::string_view column) const { return with(column).numbers(column); }

}  // namespace lc
