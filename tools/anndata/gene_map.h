// Other names of genes: retired or alias ids to current ones, ids of another species to human ones.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lc {

class GeneMap {
 public:
  // A table of two columns (tabs; more are ignored, a first line without an Ensembl id in column 2 is a header): id or symbol, current
  // Ensembl id (empty: none, passed over). DataError naming file and line: fewer columns, an empty name, no Ensembl id, nothing in it.
  static GeneMap read(const std::filesystem::path& path);
  // As read, but one-to-one: what has several partners on either side is left out.
  static GeneMap read_orthologs(const std::filesystem::path& path);

  const std::string* find(std::string_view name) const;                     // the current id; null: not there, or of several genes
  const std::string& file() const { return file_; }                         // for messages
  const std::vector<std::string>& ambiguous() const { return ambiguous_; }  // names left out, sorted
  size_t size() const { return current_.size(); }
  bool empty() const { return current_.empty(); }

 private:
  std::string file_;
  std::unordered_map<std::string, std::string> current_;
  std::vector<std::string> ambiguous_;
};

}  // namespace lc
