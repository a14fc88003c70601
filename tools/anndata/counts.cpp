#include "tools/anndata/counts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>

#include "engine/errors.h"

namespace lc {

namespace {

constexpr std::array kCountLayers = {"counts", "raw", "raw_counts", "raw_count", "count", "umi", "umis", "UMI", "umi_counts"};

struct Candidate {
  std::string matrix, var;  // paths in the file: "raw/X", "raw/var"
};

bool is_matrix(const Hdf5& file, std::string_view path) { return file.has(path) && !file.at(path).is_null(); }

std::vector<std::string> layers_of(const Hdf5& file) {
  return file.has_group("layers") ? file.at("layers").children() : std::vector<std::string>();
}

std::vector<std::string> matrices_of(const Hdf5& file) {
  std::vector<std::string> all;
  for (const char* path : {"raw/X", "X"})
    if (is_matrix(file, path)) all.push_back(path);
  for (const std::string& layer : layers_of(file)) all.push_back("layers/" + layer);
  return all;
}

Candidate asked_for(const Hdf5& file, const std::string& layer) {
  if (layer == "X" && is_matrix(file, "X")) return {"X", "var"};
  if ((layer == "raw/X" || (layer == "raw" && !file.has("layers/raw"))) && is_matrix(file, "raw/X")) return {"raw/X", "raw/var"};
  const std::string path = layer.starts_with("layers/") ? layer : "layers/" + layer;
  if (is_matrix(file, path)) return {path, "var"};
  throw DataError(fmt::format("{}: no matrix '{}'; it has: {}", file.where(), layer, fmt::join(matrices_of(file), ", ")));
}

std::vector<Candidate> candidates(const Hdf5& file, const std::string& layer) {
  if (!layer.empty()) return {asked_for(file, layer)};
  std::vector<Candidate> found;
  if (is_matrix(file, "raw/X")) found.push_back({"raw/X", file.has("raw/var") ? "raw/var" : "var"});
  for (const char* name : kCountLayers)
    if (is_matrix(file, fmt::format("layers/{}", name))) found.push_back({fmt::format("layers/{}", name), "var"});
  if (is_matrix(file, "X")) found.push_back({"X", "var"});
  if (!found.empty()) return found;
  const std::vector<std::string> there = matrices_of(file);
  if (there.empty()) throw DataError(fmt::format("{}: holds no matrix, neither X nor raw/X nor a layer", file.where()));
  throw DataError(
      fmt::format("{}: no X, raw/X or layer of counts; it has: {}; choose one with --layer", file.where(), fmt::join(there, ", ")));
}

Hdf5 open_anndata(const std::filesystem::path& path) {
  Hdf5 file = Hdf5::open(path);
  if (file.has("obs") && file.has("var")) return file;
  throw DataError(
      fmt::format("{}: has no obs and var, so it is no .h5ad file, and no matrix/barcodes, so it is none of 10x", path.string()));
}

// What two surveys say of each gene that both have; the index of var is the key.
bool differ(const Survey& a, const std::vector<std::string>& genes_a, const Survey& b, const std::vector<std::string>& genes_b) {
  std::unordered_map<std::string_view, std::pair<double, std::uint64_t>> sums;
  std::unordered_map<std::string_view, std::pair<double, std::uint64_t>> others;
  const auto add = [](auto& into, const Survey& survey, const std::vector<std::string>& genes) {
    for (size_t i = 0; i < genes.size(); ++i) {
      auto& entry = into[genes[i]];
      entry.first += survey.gene_totals[i];
      entry.second += survey.gene_marks[i];
    }
  };
  add(sums, a, genes_a);
  add(others, b, genes_b);
  return std::any_of(others.begin(), others.end(), [&](const auto& entry) {
    const auto same = sums.find(entry.first);
    return same != sums.end() && same->second != entry.second;
  });
}

struct Choice {
  Candidate candidate;
  std::shared_ptr<const CellMatrix> matrix;  // null: nothing was counts
  Survey survey;
  std::vector<std::string> rejected, alike, different;
};

Choice choose(const Hdf5& file, const Frame& obs, const std::string& layer, FractionalCounts fractional) {
  Choice choice;
  std::vector<std::string> genes;
  for (const Candidate& candidate : candidates(file, layer)) {
    std::shared_ptr<const CellMatrix> matrix = open_matrix(file.at(candidate.matrix));
    const Frame var(file.at(candidate.var));
    if (matrix->cells() != obs.rows() || matrix->genes() != var.rows())
      throw DataError(fmt::format("{}: {} × {}, wanted {} cells (obs) × {} genes ({}); the file is damaged", file.where(candidate.matrix),
                                  matrix->cells(), matrix->genes(), obs.rows(), var.rows(), candidate.var));
    Survey found = survey(*matrix, choice.matrix ? FractionalCounts::refuse : fractional);
    const bool accepted = found.verdict == Survey::Verdict::corrected && !choice.matrix && fractional == FractionalCounts::accept;
    if (found.verdict != Survey::Verdict::counts && !accepted) {
      choice.rejected.push_back(fmt::format("{}: {}", candidate.matrix, found.reason));
    } else if (!choice.matrix) {
      genes = var.index();
      choice.candidate = candidate;
      choice.matrix = std::move(matrix);
      choice.survey = std::move(found);
    } else {
      (differ(choice.survey, genes, found, var.index()) ? choice.different : choice.alike).push_back(candidate.matrix);
    }
  }
  return choice;
}

// Real counts come before corrected ones, wherever they stand among the candidates.
Choice choose(const Hdf5& file, const Frame& obs, const CountsOptions& options) {
  Choice choice = choose(file, obs, options.layer, FractionalCounts::refuse);
  if (!choice.matrix && options.fractional == FractionalCounts::accept) choice = choose(file, obs, options.layer, FractionalCounts::accept);
  if (!choice.matrix)
    throw DataError(fmt::format("{}: no matrix holds counts ({}); give the file with the raw counts, in X, raw/X or a layer", file.where(),
                                fmt::join(choice.rejected, "; ")));
  return choice;
}

// raw/var often has an index only; the names then stand in var.
void complete_names(const Hdf5& file, GeneIds& genes) {
  if (std::any_of(genes.names.begin(), genes.names.end(), [](const std::string& name) { return !name.empty(); })) return;
  const Frame all(file.at("var"));
  const GeneTable table = gene_table_of(all);
  const std::vector<std::string>&ids = table.index, &names = table.symbols;
  std::unordered_map<std::string, std::string> by_id;
  for (size_t i = 0; i < names.size(); ++i) by_id.emplace(without_version(ids[i]), names[i]);
  for (size_t i = 0; i < genes.ids.size(); ++i)
    if (const auto entry = by_id.find(genes.ids[i]); entry != by_id.end()) genes.names[i] = entry->second;
}

}  // namespace

CsrBlock CountMatrix::read_rows(std::uint64_t begin, std::uint64_t end) const {
  if (begin > end || end > n_cells()) throw ShapeError(fmt::format("counts: wanted cells {} to {} of {}", begin, end, n_cells()));
  return matrix_->read_rows(begin, end);
}

void CountMatrix::name_genes(const GeneTable& table, const CountsOptions& options) {
  genes_ = choose_gene_ids(table, options.genes);
  if (genes_.cross_species) source_ += " (cross-species by orthologs, not validated)";
}

CountMatrix CountMatrix::of_anndata(const std::filesystem::path& path, const CountsOptions& options) {
  if (!options.tenx.genome.empty() || options.tenx.min_counts >= 0)
    throw UsageError(fmt::format("{}: --genome and --min-counts are for files of 10x", path.string()));
  const Hdf5 file = open_anndata(path);
  const Frame obs(file.at("obs"));
  CountMatrix counts(path.string(), CellTable(obs));
  if (obs.rows() == 0) throw DataError(fmt::format("{}: holds no cells", file.where("obs")));
  if (Frame(file.at("var")).rows() == 0) throw DataError(fmt::format("{}: holds no genes", file.where("var")));
  Choice choice = choose(file, obs, options);
  counts.matrix_ = choice.matrix;
  counts.source_ = choice.candidate.matrix;
  counts.totals_ = std::move(choice.survey.gene_totals);
  counts.notes_.push_back(
      fmt::format("counts: {} ({}, {} cells × {} genes)", counts.source_, choice.matrix->form(), counts.n_cells(), counts.n_genes()));
  for (const std::string& reason : choice.rejected) counts.notes_.push_back("not counts: " + reason);
  if (!choice.alike.empty()) counts.notes_.push_back(fmt::format("the same counts: {}", fmt::join(choice.alike, ", ")));
  if (!choice.different.empty())
    counts.warnings_.push_back(
        fmt::format("{} holds counts too, but others than {}; --layer chooses", fmt::join(choice.different, ", "), counts.source_));
  if (choice.survey.verdict == Survey::Verdict::corrected)
    counts.warnings_.push_back(fmt::format("{} holds corrected counts (fractions), read as they are", counts.source_));
  if (choice.matrix->form() == "CSC")
    counts.warnings_.push_back(
        fmt::format("{} is stored by genes (CSC): it is turned in memory, 8 bytes for each value that is not zero", counts.source_));

  counts.name_genes(gene_table_of(Frame(file.at(choice.candidate.var))), options);
  if (choice.candidate.var != "var") complete_names(file, counts.genes_);
  return counts;
}

CountMatrix CountMatrix::of_tenx(const std::filesystem::path& path, const CountsOptions& options) {
  if (!options.layer.empty()) throw UsageError(fmt::format("{}: --layer is for .h5ad files; one of 10x has one matrix", path.string()));
  TenX tenx = open_tenx(path, options.tenx);
  if (tenx.barcodes.empty()) throw DataError(fmt::format("{}: holds no cells", path.string()));
  Survey found = survey(*tenx.matrix, options.fractional);
  const bool corrected = found.verdict == Survey::Verdict::corrected && options.fractional == FractionalCounts::accept;
  if (found.verdict != Survey::Verdict::counts && !corrected)
    throw DataError(fmt::format("{}: no counts ({})", path.string(), found.reason));
  CountMatrix counts(path.string(), CellTable(path.string(), std::move(tenx.barcodes)));
  counts.from_anndata_ = false;
  counts.matrix_ = std::move(tenx.matrix), counts.source_ = "matrix", counts.totals_ = std::move(found.gene_totals);
  counts.notes_.push_back(
      fmt::format("counts: 10x matrix ({}, {} cells × {} genes)", counts.matrix_->form(), counts.n_cells(), counts.n_genes()));
  counts.notes_.insert(counts.notes_.end(), tenx.notes.begin(), tenx.notes.end());
  if (corrected) counts.warnings_.push_back("the matrix holds corrected counts (fractions), read as they are");
  counts.name_genes({tenx.where, "features", std::move(tenx.ids), std::move(tenx.names)}, options);
  return counts;
}

CountMatrix open_counts(const std::filesystem::path& path, const CountsOptions& options) {
  std::error_code unreadable;
  std::optional<Hdf5> file;  // opened before anything is read
  if (!std::filesystem::is_directory(path, unreadable)) file = Hdf5::open(path);
  CountMatrix counts = is_tenx(path) ? CountMatrix::of_tenx(path, options) : CountMatrix::of_anndata(path, options);
  counts.file_ = std::move(file);
  counts.notes_.insert(counts.notes_.end(), counts.genes_.notes.begin(), counts.genes_.notes.end());
  counts.warnings_.insert(counts.warnings_.end(), counts.genes_.warnings.begin(), counts.genes_.warnings.end());
  return counts;
}

CellTable open_cells(const std::filesystem::path& path, const TenXOptions& options) {
  if (is_tenx(path)) return {path.string(), tenx_barcodes(path, options.genome)};
  return CellTable(Frame(open_anndata(path).at("obs")));
}

Coverage coverage(const CountMatrix& counts, std::span<const std::string> vocabulary) {
  return coverage(counts.gene_ids(), counts.gene_names(), counts.gene_totals(), vocabulary);
}

}  // namespace lc
