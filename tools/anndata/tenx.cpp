#include "tools/anndata/tenx.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "engine/errors.h"
#include "engine/hdf5.h"
#include "tools/anndata/matrix_market.h"
#include "tools/anndata/text_lines.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGenes = "Gene Expression";
constexpr std::uint64_t kManyBarcodes = 100'000, kRowsAtOnce = 4096;
constexpr double kFewCounts = 50;

struct Features {
  std::vector<std::string> ids, names, types, genomes;  // types, genomes: empty where the file has none
};

// Some genes and some cells of a matrix, in its order.
class Chosen final : public CellMatrix {
 public:
  Chosen(std::shared_ptr<const CellMatrix> all, std::vector<std::int32_t> number_of_gene, std::uint64_t genes)
      : CellMatrix(all->cells(), genes, all->form()), all_(std::move(all)), number_of_gene_(std::move(number_of_gene)) {}
  Chosen(std::shared_ptr<const CellMatrix> all, std::vector<std::uint64_t> cells)
      : CellMatrix(cells.size(), all->genes(), all->form()), all_(std::move(all)), cells_(std::move(cells)), some_(true) {}

  CsrBlock read_rows(std::uint64_t begin, std::uint64_t end) const override {
    CsrBlock out;
    out.first = begin;
    out.offsets.push_back(0);
    if (begin == end) return out;
    const std::uint64_t first = some_ ? cells_[begin] : begin;
    const CsrBlock block = all_->read_rows(first, some_ ? cells_[end - 1] + 1 : end);
    for (std::uint64_t i = begin; i < end; ++i) {
      const auto row = static_cast<size_t>((some_ ? cells_[i] : i) - first);
      for (size_t k = block.begin_of(row); k < block.begin_of(row + 1); ++k) {
        const std::int32_t gene = some_ ? block.genes[k] : number_of_gene_[static_cast<size_t>(block.genes[k])];
        if (gene >= 0) out.genes.push_back(gene), out.values.push_back(block.values[k]);
      }
      out.offsets.push_back(static_cast<std::int64_t>(out.genes.size()));
    }
    return out;
  }

 private:
  std::shared_ptr<const CellMatrix> all_;
  std::vector<std::int32_t> number_of_gene_;
  std::vector<std::uint64_t> cells_;
  bool some_ = false;
};

// ---- .h5

std::vector<std::string> genomes_of_v2(const Hdf5& root) {
  std::vector<std::string> genomes;
  for (const std::string& name : root.children())
    if (root.has_group(name) && root.has(name + "/barcodes") && root.has(name + "/genes")) genomes.push_back(name);
  return genomes;
}
bool is_v3(const Hdf5& root) { return root.has("matrix/barcodes") && root.has("matrix/features/id"); }

[[noreturn]] void refuse_genome(const std::string& where, const std::string& genome, const std::vector<std::string>& genomes) {
  if (genome.empty())
    throw DataError(fmt::format("{}: holds several genomes ({}); choose one with --genome", where, fmt::join(genomes, ", ")));
  throw DataError(fmt::format("{}: no genome '{}'; there are: {}", where, genome, fmt::join(genomes, ", ")));
}
std::string one_of(const std::vector<std::string>& genomes, const std::string& genome, const std::string& where) {
  if (genome.empty() && genomes.size() == 1) return genomes.front();
  if (std::find(genomes.begin(), genomes.end(), genome) == genomes.end()) refuse_genome(where, genome, genomes);
  return genome;
}

Hdf5 group_of(const Hdf5& root, const std::string& genome) {
  return root.at(is_v3(root) ? std::string("matrix") : one_of(genomes_of_v2(root), genome, root.where()));
}

struct Raw {  // what a file holds, before anything is left out
  std::vector<std::string> barcodes;
  Features features;
  std::shared_ptr<const CellMatrix> matrix;
  std::string where;
};

Raw raw_of_h5(const fs::path& path, const std::string& genome) {
  const Hdf5 root = Hdf5::open(path);
  const Hdf5 group = group_of(root, genome);
  Raw raw;
  raw.barcodes = group.at("barcodes").read_strings();
  if (is_v3(root)) {
    const Hdf5 features = group.at("features");
    raw.where = features.where();
    raw.features.ids = features.at("id").read_strings();
    if (features.has("name")) raw.features.names = features.at("name").read_strings();
    if (features.has("feature_type")) raw.features.types = features.at("feature_type").read_strings();
    if (features.has("genome")) raw.features.genomes = features.at("genome").read_strings();
  } else {
    raw.where = group.where("genes");
    raw.features.ids = group.at("genes").read_strings();
    if (group.has("gene_names")) raw.features.names = group.at("gene_names").read_strings();
    raw.features.genomes.assign(raw.features.ids.size(), one_of(genomes_of_v2(root), genome, root.where()));
  }
  const std::vector<std::int64_t> shape = group.at("shape").read<std::int64_t>();
  if (shape.size() != 2 || shape[0] != std::ssize(raw.features.ids) || shape[1] != std::ssize(raw.barcodes))
    throw DataError(fmt::format("{}: wanted {} genes × {} barcodes; the file is damaged", group.where("shape"), raw.features.ids.size(),
                                raw.barcodes.size()));
  raw.matrix = open_csr(group, {raw.barcodes.size(), raw.features.ids.size()});
  return raw;
}

// ---- a folder

std::optional<fs::path> member(const fs::path& folder, const std::string& name) {
  std::vector<fs::path> found;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(folder, unreadable)) {
    const std::string file = entry.path().filename().string();
    for (const std::string& ending : {name, name + ".gz"})  // GEO puts a prefix before them
      if (file == ending || file.ends_with("_" + ending) || file.ends_with("." + ending)) found.push_back(entry.path());
  }
  if (found.size() == 2 && (found[0].string() + ".gz" == found[1].string() || found[1].string() + ".gz" == found[0].string()))
    throw DataError(fmt::format("{}: holds {} and {}; remove one of them", folder.string(), found[0].filename().string(),
                                found[1].filename().string()));
  if (found.size() > 1)
    throw DataError(fmt::format("{}: {} files end in {}; put each sample into a folder of its own", folder.string(), found.size(), name));
  return found.empty() ? std::nullopt : std::optional(found.front());
}
fs::path needed(const fs::path& folder, const std::string& name) {
  if (const auto file = member(folder, name)) return *file;
  throw DataError(fmt::format("{}: no {} or {}.gz, so it is no 10x folder", folder.string(), name, name));
}

std::vector<std::string> fields_of(std::string_view line) {
  std::vector<std::string> fields;
  for (size_t begin = 0;;) {
    const size_t tab = line.find('\t', begin);
    fields.emplace_back(line.substr(begin, tab - begin));
    if (tab == std::string_view::npos) return fields;
    begin = tab + 1;
  }
}

std::vector<std::string> barcodes_of(const fs::path& folder) {
  std::vector<std::string> barcodes;
  TextLines lines(needed(folder, "barcodes.tsv"));
  for (std::string_view line; lines.next(line);)
    if (!line.empty()) barcodes.push_back(fields_of(line).front());
  return barcodes;
}

Features features_of(const fs::path& file) {
  Features all;
  TextLines lines(file);
  for (std::string_view line; lines.next(line);) {
    if (line.empty()) continue;
    const std::vector<std::string> fields = fields_of(line);
    all.ids.push_back(fields[0]);
    all.names.push_back(fields.size() > 1 ? fields[1] : "");
    if (fields.size() > 2) all.types.push_back(fields[2]);
  }
  if (!all.types.empty() && all.types.size() != all.ids.size())
    throw DataError(
        fmt::format("{}: {} lines, of which {} say what kind of feature they are", file.string(), all.ids.size(), all.types.size()));
  return all;
}

Raw raw_of_folder(const fs::path& folder) {
  Raw raw;
  raw.barcodes = barcodes_of(folder);
  const auto features = member(folder, "features.tsv");
  const fs::path file = features ? *features : needed(folder, "genes.tsv");
  raw.features = features_of(file);
  raw.where = file.string();
  const fs::path matrix = needed(folder, "matrix.mtx");
  raw.matrix = read_matrix_market(matrix);
  if (raw.matrix->cells() != raw.barcodes.size() || raw.matrix->genes() != raw.features.ids.size())
    throw DataError(fmt::format("{}: {} genes × {} cells, but {} features and {} barcodes beside it", matrix.string(), raw.matrix->genes(),
                                raw.matrix->cells(), raw.features.ids.size(), raw.barcodes.size()));
  return raw;
}

// ---- what of it is wanted

// Features that are genes, of one genome.
std::vector<std::int32_t> genes_of(const Raw& raw, const std::string& genome, TenX& out) {
  const Features& f = raw.features;
  const size_t n = f.ids.size();
  for (const auto* column : {&f.names, &f.types, &f.genomes})
    if (!column->empty() && column->size() != n)
      throw DataError(fmt::format("{}: columns of different length; the file is damaged", raw.where));
  const auto is_gene = [&](size_t i) { return f.types.empty() || f.types[i] == kGenes; };
  std::vector<std::string> genomes;
  for (size_t i = 0; i < f.genomes.size(); ++i)
    if (is_gene(i) && !f.genomes[i].empty()) genomes.push_back(f.genomes[i]);
  std::sort(genomes.begin(), genomes.end());
  genomes.erase(std::unique(genomes.begin(), genomes.end()), genomes.end());
  if (genomes.empty() && !genome.empty())
    throw DataError(fmt::format("{}: names no genome, so --genome {} chooses nothing; leave it out", raw.where, genome));
  const std::string wanted = genomes.empty() ? "" : one_of(genomes, genome, raw.where);
  std::map<std::string, size_t> left_out;
  std::vector<std::int32_t> number(n, -1);
  for (size_t i = 0; i < n; ++i) {
    if (!is_gene(i)) {
      ++left_out[f.types[i]];
    } else if (!wanted.empty() && f.genomes[i] != wanted) {
      ++left_out["genome " + f.genomes[i]];
    } else {
      number[i] = static_cast<std::int32_t>(out.ids.size());
      out.ids.push_back(f.ids[i]), out.names.push_back(f.names.empty() ? "" : f.names[i]);
    }
  }
  for (const auto& [what, count] : left_out) out.notes.push_back(fmt::format("left out: {} features of '{}'", count, what));
  if (out.ids.empty()) throw DataError(fmt::format("{}: no feature is '{}'", raw.where, kGenes));
  return number;
}

std::vector<double> totals_of(const CellMatrix& matrix) {
  std::vector<double> totals;
  for (std::uint64_t begin = 0; begin < matrix.cells(); begin += kRowsAtOnce) {
    const CsrBlock block = matrix.read_rows(begin, std::min(begin + kRowsAtOnce, matrix.cells()));
    for (size_t r = 0; r < block.rows(); ++r) {
      double sum = 0;
      for (const float v : block.values_of(r)) sum += v;
      totals.push_back(sum);
    }
  }
  return totals;
}

void choose_cells(const fs::path& path, std::int64_t min_counts, TenX& out) {
  if (min_counts < 0 && out.barcodes.size() <= kManyBarcodes) return;
  std::vector<double> totals = totals_of(*out.matrix);
  if (min_counts < 0) {
    std::nth_element(totals.begin(), totals.begin() + static_cast<std::ptrdiff_t>(totals.size() / 2), totals.end());
    if (totals[totals.size() / 2] >= kFewCounts) return;
    throw DataError(
        fmt::format("{}: an unfiltered matrix: {} barcodes, half of them below {} counts; take the filtered one, or name the least "
                    "counts of a cell with --min-counts",
                    path.string(), totals.size(), kFewCounts));
  }
  std::vector<std::uint64_t> cells;
  std::vector<std::string> barcodes;
  for (std::uint64_t i = 0; i < totals.size(); ++i)
    if (totals[i] >= static_cast<double>(min_counts)) cells.push_back(i), barcodes.push_back(out.barcodes[i]);
  out.notes.push_back(
      fmt::format("left out: {} of {} barcodes with fewer than {} counts", totals.size() - cells.size(), totals.size(), min_counts));
  out.barcodes = std::move(barcodes);
  out.matrix = std::make_shared<Chosen>(out.matrix, std::move(cells));
}

}  // namespace

bool is_tenx(const fs::path& path) {
  std::error_code unreadable;
  if (fs::is_directory(path, unreadable)) return true;
  const Hdf5 root = Hdf5::open(path);
  return !root.has("obs") && (is_v3(root) || !genomes_of_v2(root).empty());
}

TenX open_tenx(const fs::path& path, const TenXOptions& options) {
  std::error_code unreadable;
  Raw raw = fs::is_directory(path, unreadable) ? raw_of_folder(path) : raw_of_h5(path, options.genome);
  TenX out;
  std::vector<std::int32_t> numbers = genes_of(raw, options.genome, out);
  out.where = raw.where, out.barcodes = std::move(raw.barcodes);
  out.matrix = out.ids.size() == numbers.size() ? raw.matrix : std::make_shared<Chosen>(raw.matrix, std::move(numbers), out.ids.size());
  choose_cells(path, options.min_counts, out);
  return out;
}

fs::path counts_file(const fs::path& path) {
  std::error_code unreadable;
  return fs::is_directory(path, unreadable) ? needed(path, "matrix.mtx") : path;
}

std::vector<std::string> tenx_barcodes(const fs::path& path, const std::string& genome) {
  std::error_code unreadable;
  if (fs::is_directory(path, unreadable)) return barcodes_of(path);
  return group_of(Hdf5::open(path), genome).at("barcodes").read_strings();
}

}  // namespace lc
