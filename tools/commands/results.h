// What annotate and embed write about each cell, into the kind of file its name asks for: .h5ad, .tsv, .tsv.gz, .npz.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "engine/atomic_file.h"
#include "engine/hdf5.h"
#include "tools/anndata/counts.h"
#include "tools/anndata/frame.h"

namespace lc {

bool is_table(const std::filesystem::path& out);  // .tsv, .tsv.gz: columns of obs alone

// Columns of obs (n), matrices of obsm (n × width), facts of uns. The file appears at commit(); destroyed before, it leaves nothing.
class Results {
 public:
  virtual ~Results() = default;
  virtual void obs(std::string_view name, const Categorical& values) = 0;
  virtual void obs(std::string_view name, std::span<const float> values) = 0;
  virtual void obs(std::string_view name, std::span<const H5Bool> values) = 0;
  using Rows = std::function<void(std::uint64_t begin, std::uint64_t end, float* rows)>;
  virtual void obsm(std::string_view name, std::uint64_t width, const Rows& rows) = 0;  // by blocks, but for .npz
  virtual void uns(std::string_view name, const nlohmann::ordered_json& value) = 0;
  virtual void commit() = 0;
};

struct ResultsSetup {
  std::filesystem::path input, out;
  std::string prefix;  // of the names; .npz calls P_label "label", X_P "X"
  Existing existing = Existing::refuse;
};

// A kill can fall between the output's appearing and the removal of OUT.partial/. When both are there, the same command writes the results
// once more, beside the work, and has nothing to do when the files are equal.
bool perhaps_finished(const ResultsSetup& setup);
ResultsSetup where_to_write(const ResultsSetup& setup);  // OUT, or a file in OUT.partial/ when it is perhaps finished
void require_finished(const std::filesystem::path& written,
                      const ResultsSetup& setup);  // removes that file; UsageError: OUT exists and is another one
[[noreturn]] void refuse_existing(const std::filesystem::path& out);

// Before any work: UsageError for a name of another kind, an output that exists or is the input, keys that the input has already
// (`keys`: "obs/langcell_label" …) under Existing::refuse.
void require_results_can_be_written(const ResultsSetup& setup, std::span<const std::string> keys);
// .h5ad: a copy of an .h5ad input plus results, or a new file with the counts of a 10x input. .tsv[.gz]: the columns of obs.
// .npz: obs_names, the columns, the matrices.
std::unique_ptr<Results> open_results(const ResultsSetup& setup, const CountMatrix& counts);

}  // namespace lc
