// langcell simulate: a realistic count matrix with known truth, and one text per cell type; or, for tests of scale, corpora by the million.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "models/langcell/data/corpus.h"
#include "models/langcell/data/gene_vocabulary.h"
#include "tools/anndata/writer.h"
#include "tools/commands/command.h"
#include "tools/commands/outputs.h"
#include "tools/commands/random.h"
#include "tools/commands/simulate_counts.h"
#include "tools/commands/simulate_tokens.h"

namespace lc {

namespace {

constexpr std::uint64_t kGeneStream = ~std::uint64_t{0};
constexpr std::uint64_t kBlockCells = 1024, kBlockOfTokens = 16384, kMostCounted = 10'000'000;

struct SimulateOptions {
  Common common;
  std::string out, texts, genes_from;
  std::uint64_t cells = 2000, genes = 15000, cells_per_file = 1'000'000;
  int types = 8, donors = 4;
  bool overwrite = false, tokens_only = false;
  Existing existing() const { return overwrite ? Existing::replace : Existing::refuse; }
};

// The genes of a file, or invented ones with ids that Ensembl never gave. Markers that the file lacks are taken from the types.
std::vector<SimulatedGene> genes_to_simulate(const SimulateOptions& options, std::vector<SimulatedType>& types) {
  std::vector<SimulatedGene> all;
  if (options.genes_from.empty()) {
    std::vector<std::string> names;
    for (const SimulatedType& type : types) names.insert(names.end(), type.markers.begin(), type.markers.end());
    while (names.size() < options.genes) names.push_back(fmt::format("GENE{:05}", names.size() + 1));
    names.resize(options.genes);
    Random(options.common.seed, kGeneStream).shuffle(names);
    for (const std::string& name : names) all.push_back({fmt::format("ENSG9{:010}", all.size() + 1), name});
    return all;
  }
  const GeneVocabulary vocabulary = GeneVocabulary::read(options.genes_from);
  std::set<std::string> names, wanted;
  for (const Gene& gene : vocabulary.genes()) {
    const bool usable = !gene.name.empty() && names.insert(gene.name).second;
    all.push_back({gene.ensembl_id, usable ? gene.name : gene.ensembl_id});
  }
  for (SimulatedType& type : types) {
    std::erase_if(type.markers, [&](const std::string& marker) { return !names.contains(marker); });
    wanted.insert(type.markers.begin(), type.markers.end());
  }
  if (all.size() <= options.genes) return all;
  std::vector<size_t> others;
  std::vector<char> chosen(all.size(), 0);
  for (size_t i = 0; i < all.size(); ++i) {
    chosen[i] = wanted.contains(all[i].name) ? 1 : 0;
    if (!chosen[i]) others.push_back(i);
  }
  Random(options.common.seed, kGeneStream).shuffle(others);
  others.resize(options.genes - std::min<size_t>(wanted.size(), options.genes));
  for (size_t i : others) chosen[i] = 1;
  std::vector<SimulatedGene> genes;
  for (size_t i = 0; i < all.size(); ++i)
    if (chosen[i]) genes.push_back(all[i]);
  return genes;
}

NewAnnData content_of(const SimulatedCounts& simulated) {
  NewAnnData content;
  std::vector<std::string> names;
  for (const SimulatedGene& gene : simulated.genes()) {
    content.genes.push_back(gene.ensembl_id);
    names.push_back(gene.name);
  }
  content.gene_columns.emplace_back("gene_name", std::move(names));
  for (size_t cell = 0; cell < simulated.type_of_cell().size(); ++cell)
    content.cells.push_back(fmt::format("cell{:06}-donor{}", cell + 1, simulated.donor_of_cell()[cell] + 1));
  return content;
}

void write_cells(const SimulatedCounts& simulated, const SimulateOptions& options) {
  AnnDataWriter writer = AnnDataWriter::fresh(content_of(simulated), options.out, options.existing());
  std::vector<float> totals;
  for (std::uint64_t begin = 0; begin < options.cells; begin += kBlockCells) {
    const CsrBlock block = simulated.cells(begin, std::min(begin + kBlockCells, options.cells));
    const std::vector<float> sums = n_counts_of(block.view());
    totals.insert(totals.end(), sums.begin(), sums.end());
    writer.append_x(block);
    say(options.common, fmt::format("simulated {} of {} cells", std::min(begin + kBlockCells, options.cells), options.cells));
  }
  Categorical types{simulated.type_of_cell(), {}, Ordered::no}, donors{simulated.donor_of_cell(), {}, Ordered::no};
  for (const SimulatedType& type : simulated.types()) types.categories.push_back(type.name);
  for (int donor = 1; donor <= options.donors; ++donor) donors.categories.push_back(fmt::format("donor{}", donor));
  writer.obs("cell_type", types);
  writer.obs("donor_id", donors);
  writer.obs("n_counts", std::span<const float>(totals));
  nlohmann::ordered_json markers;
  for (const SimulatedType& type : simulated.types()) markers.push_back(fmt::format("{}: {}", type.name, fmt::join(type.markers, ", ")));
  writer.uns("simulation", {{"seed", options.common.seed}, {"markers", markers}});
  writer.commit();
}

void print_result(const SimulatedCounts& simulated, const SimulateOptions& options) {
  std::vector<std::uint64_t> count(simulated.types().size(), 0);
  for (std::int32_t type : simulated.type_of_cell()) ++count[static_cast<size_t>(type)];
  if (options.common.json) {
    nlohmann::ordered_json types;
    for (size_t t = 0; t < count.size(); ++t) types[simulated.types()[t].name] = count[t];
    const nlohmann::ordered_json result = {
        {"out", options.out},       {"texts", options.texts},      {"cells", options.cells}, {"genes", simulated.genes().size()},
        {"donors", options.donors}, {"seed", options.common.seed}, {"types", types}};
    fmt::print("{}\n", result.dump());
    return;
  }
  fmt::print("{}: {} cells × {} genes, {} donors; truth in obs/cell_type\n{}: {} texts\n\n", options.out, options.cells,
             simulated.genes().size(), options.donors, options.texts, count.size());
  for (size_t t = 0; t < count.size(); ++t) fmt::print("{:>8}  {}\n", count[t], simulated.types()[t].name);
}

// Cells [begin, end) to one corpus; returns its tokens.
std::uint64_t write_corpus(const std::filesystem::path& path, const SimulatedTokens& simulated, CorpusSetup setup,
                           const SimulateOptions& options, std::pair<std::uint64_t, std::uint64_t> range) {
  const auto most = static_cast<size_t>(setup.max_genes);
  CorpusWriter writer(path, std::move(setup));
  std::uint64_t tokens = 0;
  std::vector<std::vector<std::int32_t>> block(kBlockOfTokens);
  for (std::uint64_t begin = range.first; begin < range.second; begin += kBlockOfTokens) {
    const auto count = static_cast<std::int64_t>(std::min(kBlockOfTokens, range.second - begin));
#pragma omp parallel for schedule(dynamic, 256)
    for (std::int64_t i = 0; i < count; ++i) simulated.tokens(begin + static_cast<std::uint64_t>(i), block[static_cast<size_t>(i)]);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint64_t cell = begin + static_cast<std::uint64_t>(i);
      const std::string donor[] = {fmt::format("donor{}", simulated.donor(cell) + 1)};
      writer.append({fmt::format("cell{:09}-{}", cell + 1, donor[0]), block[static_cast<size_t>(i)], simulated.type(cell), donor});
      tokens += std::min(block[static_cast<size_t>(i)].size(), most);
    }
    say(options.common, fmt::format("simulated {} of {} cells", begin + static_cast<std::uint64_t>(count), options.cells));
  }
  const std::uint64_t cells = range.second - range.first;
  writer.finish({cells, cells, {}, {}}, {},
                {{"simulated", fmt::format("seed {}, cells {} to {}", options.common.seed, range.first + 1, range.second)}});
  return tokens;
}

// A folder of corpora, in memory that does not depend on the number of cells.
void simulate_corpora(const SimulateOptions& options, const SimulatedCounts& patterns, const Texts& texts) {
  const auto start = std::chrono::steady_clock::now();
  CorpusSetup setup{options.genes_from.empty() ? vocabulary_of(patterns) : GeneVocabulary::read(options.genes_from), texts, {"donor_id"}};
  const SimulatedTokens simulated(patterns, setup.vocabulary, options.common.seed);
  AtomicFolder folder(options.out, options.existing());
  std::uint64_t tokens = 0, files = 0;
  for (std::uint64_t begin = 0; begin < options.cells; begin += options.cells_per_file, ++files)
    tokens += write_corpus(folder.partial_path() / fmt::format("cells-{:05}.h5", files), simulated, setup, options,
                           {begin, std::min(begin + options.cells_per_file, options.cells)});
  folder.commit();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double rate = static_cast<double>(options.cells) / seconds;
  if (options.common.json)
    fmt::print("{}\n", nlohmann::ordered_json({{"out", options.out},
                                               {"texts", options.texts},
                                               {"files", files},
                                               {"cells", options.cells},
                                               {"tokens", tokens},
                                               {"seconds", seconds},
                                               {"cells_per_s", rate}})
                           .dump());
  else
    fmt::print("{}: {} cells, {} tokens in {} corpora; {:.0f} s, {:.0f} cells/s\n", options.out, options.cells, tokens, files, seconds,
               rate);
}

void run_simulate(const SimulateOptions& options) {
  require_new(options.texts, options.overwrite ? Overwrite::yes : Overwrite::no, "--texts");
  if (!options.tokens_only && options.cells > kMostCounted)
    throw UsageError(
        fmt::format("--cells: wanted at most {} cells with counts, got {}; --tokens-only writes more", kMostCounted, options.cells));
  std::vector<SimulatedType> types = simulated_types(options.types);
  std::vector<SimulatedGene> genes = genes_to_simulate(options, types);
  const std::uint64_t needed = static_cast<std::uint64_t>(options.types) * 6 + 100;
  if (genes.size() < needed)
    throw UsageError(fmt::format("--genes: {} types need at least {} genes, got {}", options.types, needed, genes.size()));
  const std::uint64_t counted = options.tokens_only ? SimulatedTokens::kPatterns : options.cells;
  const SimulatedCounts simulated({counted, options.common.seed, options.donors}, std::move(genes), std::move(types));
  nlohmann::ordered_json texts;
  for (const SimulatedType& type : simulated.types()) texts[type.name] = type.text();
  if (options.tokens_only)
    simulate_corpora(options, simulated, Texts::parse(texts.dump(), options.texts));
  else
    write_cells(simulated, options);
  write_file(options.texts, texts.dump(2) + "\n");
  if (!options.tokens_only) print_result(simulated, options);
}

}  // namespace

void register_simulate(Command program) {
  const auto options = std::make_shared<SimulateOptions>();
  Command command = add_command(program, "simulate", "a realistic count matrix with known cell types, donors and texts",
                                "langcell simulate --out cells.h5ad --texts texts.json --cells 3000 --types 8 --seed 1\n"
                                "  langcell simulate --tokens-only --out corpora --texts texts.json --cells 10000000");
  command.add_option("--out", options->out, "the .h5ad to write; with --tokens-only a folder of corpora").required();
  command.add_option("--texts", options->texts, "the T.json to write: one text for each cell type").required();
  command
      .add_option("--cells", options->cells,
                  "number of cells; with one seed, fewer cells are the first of more: hold cells back with 'split'")
      .range(std::uint64_t{1}, std::uint64_t{1'000'000'000})
      .capture_default_str();
  command.add_option("--genes", options->genes, "number of genes (with --genes-from at most as many as the file has)")
      .range(std::uint64_t{150}, std::uint64_t{100'000})
      .capture_default_str();
  command.add_option("--types", options->types, "number of cell types").range(1, 200).capture_default_str();
  command.add_option("--donors", options->donors, "number of donors, each with a batch effect and a composition of its own")
      .range(1, 1000)
      .capture_default_str();
  command.add_flag("--tokens-only", options->tokens_only,
                   "corpora for 'pretrain' (data.corpus = [\"FOLDER\"]) in place of counts: millions of cells in constant memory");
  command.add_option("--cells-per-file", options->cells_per_file, "cells of a corpus, with --tokens-only")
      .range(std::uint64_t{1}, std::uint64_t{1'000'000'000})
      .capture_default_str();
  command.add_option("--genes-from", options->genes_from, "take gene ids and names from this genes.tsv");
  command.add_option("--seed", options->common.seed, "the same seed gives the same file content").capture_default_str();
  command.add_flag("--overwrite", options->overwrite, "replace existing outputs");
  command.add_flag("--quiet", options->common.quiet, "no progress on standard error");
  command.add_flag("--json", options->common.json, "the result as one JSON object on standard output");
  command.callback([options] { run_simulate(*options); });
}

}  // namespace lc
