#include "tools/anndata/gene_map.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/errors.h"
#include "tools/anndata/genes.h"
#include "tools/anndata/text_lines.h"

namespace lc {

GeneMap GeneMap::read(const std::filesystem::path& path) {
  GeneMap map;
  map.file_ = path.string();
  TextLines lines(path);
  for (std::string_view line; lines.next(line);) {
    if (line.empty() || line.front() == '#') continue;
    const size_t tab = line.find('\t');
    if (tab == std::string_view::npos)
      throw DataError(fmt::format("{}: wanted two columns with a tab between them, got '{}'", lines.where(), line.substr(0, 60)));
    const std::string_view rest = line.substr(tab + 1);
    const std::string name = without_version(line.substr(0, tab)), current = without_version(rest.substr(0, rest.find('\t')));
    if (lines.number() == 1 && !is_ensembl_gene(current)) continue;  // a header
    if (current.empty()) continue;                                   // BioMart's way of saying that there is none
    if (!is_ensembl_gene(current))
      throw DataError(fmt::format("{}: '{}' in the second column is no Ensembl gene id", lines.where(), current.substr(0, 60)));
    if (name.empty()) throw DataError(fmt::format("{}: the first column is empty", lines.where()));
    const auto [entry, added] = map.current_.emplace(name, current);
    if (!added && entry->second != current) map.ambiguous_.push_back(name);
  }
  if (map.current_.empty()) throw DataError(fmt::format("{}: no gene is mapped; wanted lines of two columns: name, current id", map.file_));
  std::sort(map.ambiguous_.begin(), map.ambiguous_.end());
  map.ambiguous_.erase(std::unique(map.ambiguous_.begin(), map.ambiguous_.end()), map.ambiguous_.end());
  for (const std::string& name : map.ambiguous_) map.current_.erase(name);
  return map;
}

GeneMap GeneMap::read_orthologs(const std::filesystem::path& path) {
  GeneMap map = read(path);
  std::unordered_map<std::string, int> partners;
  for (const auto& [name, current] : map.current_) ++partners[current];
  for (const auto& [name, current] : map.current_)
    if (partners[current] > 1) map.ambiguous_.push_back(name);
  std::sort(map.ambiguous_.begin(), map.ambiguous_.end());
  for (const std::string& name : map.ambiguous_) map.current_.erase(name);
  if (map.current_.empty()) throw DataError(fmt::format("{}: no gene has exactly one ortholog", map.file_));
  return map;
}

const std::string* GeneMap::find(std::string_view name) const {
  const auto entry = current_.find(std::string(name));
  return entry == current_.end() ? nullptr : &entry->second;
}

}  // namespace lc
