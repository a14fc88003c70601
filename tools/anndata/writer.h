// Writes .h5ad files that anndata ≥ 0.8 reads: a copy of an input with results added (everything else in it stays as it is), or a new file.
// The file appears under its name at commit(); a writer destroyed before leaves nothing.
#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/hdf5.h"
#include "tools/anndata/frame.h"
#include "tools/anndata/matrix.h"

namespace lc {

struct NewAnnData {
  std::vector<std::string> cells, genes;                                            // the indices of obs and var
  std::vector<std::pair<std::string, std::vector<std::string>>> gene_columns = {};  // text columns of var
};

class AnnDataWriter {
 public:
  // UsageError: output is the input, or exists under Existing::refuse. The same `existing` holds for keys that the input has already.
  static AnnDataWriter copy_of(const std::filesystem::path& input, const std::filesystem::path& output, Existing existing);
  static AnnDataWriter fresh(const NewAnnData& content, const std::filesystem::path& output, Existing existing);

  // Columns of obs, one entry per cell. Names and keys contain no '/'.
  void obs(std::string_view name, const Categorical& values);
  void obs(std::string_view name, std::span<const float> values);
  void obs(std::string_view name, std::span<const std::string> values);
  void obs(std::string_view name, std::span<const H5Bool> values);
  Hdf5 obsm(std::string_view name, std::uint64_t width);  // cells × width float32, to be filled with write_rows
  void obsm(std::string_view name, std::span<const float> values, std::uint64_t width);
  void uns(std::string_view name, const nlohmann::ordered_json& value);  // see write_json
  void append_x(const CsrBlock& cells);                                  // of a fresh file: the next rows of X, gzip
  void commit();

 private:
  AnnDataWriter(std::unique_ptr<AtomicFile> output, Hdf5 file, Existing existing);
  Frame obs_frame() const { return Frame(file_.at("obs")); }
  void make_room(const Hdf5& group, std::string_view name) const;
  template <class F>
  void obs_column(std::string_view name, size_t entries, F write);

  std::unique_ptr<AtomicFile> output_;
  Hdf5 file_;  // closed before the partial file is removed
  Existing existing_;
  std::uint64_t cells_ = 0;
  std::vector<std::int64_t> x_offsets_;  // of a fresh file
};

// Which of the keys ("obs/langcell_label", "obsm/X_langcell", "uns/langcell") the file has; to be asked before hours of work.
std::vector<std::string> keys_present(const std::filesystem::path& file, std::span<const std::string> keys);
void refuse_same_file(const std::filesystem::path& input, const std::filesystem::path& output);  // UsageError

}  // namespace lc
