#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "tests/tools/anndata_files.h"
#include "tools/anndata/counts.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;
using test::Table;
using test::TemporaryFolder;
using Texts = std::vector<std::string>;

constexpr std::uint64_t kCells = 41, kGenes = 67;

template <class F>
Table changed(Table table, F f) {
  for (float& value : table.values) value = f(value);
  return table;
}

Table normalised(const Table& counts, double target) {
  Table out = counts;
  for (std::uint64_t cell = 0; cell < counts.cells; ++cell) {
    double sum = 0;
    for (std::uint64_t gene = 0; gene < counts.genes; ++gene) sum += counts.at(cell, gene);
    for (std::uint64_t gene = 0; gene < counts.genes; ++gene) out.at(cell, gene) = static_cast<float>(counts.at(cell, gene) / sum * target);
  }
  return out;
}

Table logged(const Table& table) {
  return changed(table, [](float value) { return std::log1p(value); });
}

Table first_genes(const Table& table, std::uint64_t genes) {
  Table out{table.cells, genes, {}};
  for (std::uint64_t cell = 0; cell < table.cells; ++cell)
    for (std::uint64_t gene = 0; gene < genes; ++gene) out.values.push_back(table.at(cell, gene));
  return out;
}

Table corrected(const Table& counts) {  // as ambient correction leaves them
  Table out = counts;
  for (size_t i = 0; i < out.values.size(); ++i)
    if (out.values[i] > 2) out.values[i] -= 0.1f * static_cast<float>(1 + i % 17);
  return out;
}

bool lists(const Texts& lines, std::string_view part) {
  return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) { return line.find(part) != std::string::npos; });
}

class AnnDataCounts : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "in.h5ad";
  Table counts_ = test::random_counts(kCells, kGenes);
  Hdf5 file_ = test::start_h5ad(path_, kCells, test::gene_ids(kGenes));

  void start(std::uint64_t cells, const Texts& var_index) {  // another file; HDF5 does not cut one that is still open
    file_.close();
    file_ = test::start_h5ad(path_ = folder_ / fmt::format("{}.h5ad", ++files_), cells, var_index);
  }

  CountMatrix open(const CountsOptions& options = {}) {
    file_.close();
    return open_counts(path_, options);
  }
  std::string refusal(const CountsOptions& options = {}) {
    file_.close();
    return message_of<DataError>([&] { open_counts(path_, options); });
  }
  int files_ = 0;
  void expect_counts(const CountMatrix& found) const {
    Table table{kCells, kGenes, std::vector<float>(kCells * kGenes, 0.0f)};
    found.for_each_block(7, [&](const CsrBlock& block) {
      for (size_t row = 0; row < block.rows(); ++row)
        for (size_t i = 0; i < block.genes_of(row).size(); ++i)
          table.at(block.first + row, static_cast<std::uint64_t>(block.genes_of(row)[i])) = block.values_of(row)[i];
    });
    EXPECT_EQ(table.values, counts_.values);
  }
};

// ---- which matrix -----------------------------------------------------------------------------------------------------------

TEST_F(AnnDataCounts, XIsReadWhenItIsCounts) {
  test::put_sparse(file_, "X", counts_);
  const CountMatrix found = open();
  EXPECT_EQ(found.source(), "X");
  EXPECT_EQ(found.gene_ids(), test::gene_ids(kGenes));
  EXPECT_EQ(found.cells().names(), test::cell_names(kCells));
  EXPECT_DOUBLE_EQ(std::accumulate(found.gene_totals().begin(), found.gene_totals().end(), 0.0),
                   std::accumulate(counts_.values.begin(), counts_.values.end(), 0.0));
  EXPECT_TRUE(found.warnings().empty());
  expect_counts(found);
}

TEST_F(AnnDataCounts, RawComesFirstAndKeepsItsGenesWhenVarIsSmaller) {
  file_.remove("var");
  write_frame(file_, "var", test::gene_ids(20));
  test::put_dense(file_, "X", logged(normalised(first_genes(counts_, 20), 1e4)));
  test::put_sparse(file_, "raw/X", counts_);
  write_frame(file_, "raw/var", test::gene_ids(kGenes));
  const CountMatrix found = open();
  EXPECT_EQ(found.source(), "raw/X");
  EXPECT_EQ(found.n_genes(), kGenes);
  EXPECT_TRUE(lists(found.notes(), "not counts: X: log-normalised"));
  expect_counts(found);
}

TEST_F(AnnDataCounts, ALayerOfCountsComesBeforeX) {
  test::put_sparse(file_, "X", counts_);
  test::put_sparse(file_, "layers/counts", counts_);
  test::put_sparse(file_, "layers/spliced", counts_);
  const CountMatrix found = open();
  EXPECT_EQ(found.source(), "layers/counts");
  EXPECT_TRUE(lists(found.notes(), "the same counts: X"));
  EXPECT_TRUE(found.warnings().empty());
}

TEST_F(AnnDataCounts, TwoMatricesOfDifferentCountsAreWarnedOf) {
  Table other = counts_;
  std::swap_ranges(other.values.begin(), other.values.begin() + kGenes, other.values.begin() + kGenes);  // cells 0 and 1: all sums stay
  test::put_sparse(file_, "X", other);
  test::put_sparse(file_, "layers/counts", counts_, test::Axis::genes);
  const CountMatrix found = open();
  EXPECT_EQ(found.source(), "layers/counts");
  EXPECT_TRUE(lists(found.warnings(), "X holds counts too, but others than layers/counts"));
  EXPECT_TRUE(lists(found.warnings(), "(CSC): it is turned in memory"));
  expect_counts(found);
}

TEST_F(AnnDataCounts, ALayerAskedForIsTheOnlyCandidate) {
  test::put_sparse(file_, "X", counts_);
  test::put_sparse(file_, "layers/mine", counts_);
  test::put_sparse(file_, "layers/log", logged(counts_));
  EXPECT_EQ(open({.layer = "mine"}).source(), "layers/mine");
  EXPECT_EQ(open_counts(path_, {.layer = "layers/mine"}).source(), "layers/mine");
  EXPECT_EQ(open_counts(path_, {.layer = "X"}).source(), "X");
  EXPECT_TRUE(holds(refusal({.layer = "log"}), "no matrix holds counts (layers/log: the logarithm of counts"));
  EXPECT_TRUE(holds(refusal({.layer = "nope"}), "no matrix 'nope'; it has: X, layers/log, layers/mine"));
}

// ---- what is counts ---------------------------------------------------------------------------------------------------------

TEST_F(AnnDataCounts, OneFractionInTheLastCellIsFound) {
  Table table = counts_;
  table.at(kCells - 1, kGenes - 1) = 3.25f;
  test::put_sparse(file_, "X", table);
  EXPECT_TRUE(holds(refusal(),
                    "X: fractions, from no known normalisation (3.25 in cell 40, column 66): corrected counts need --fractional-counts"));
}

TEST_F(AnnDataCounts, CorrectedCountsNeedTheirOption) {
  test::put_sparse(file_, "X", corrected(counts_));
  EXPECT_TRUE(holds(refusal(), "--fractional-counts"));
  const CountMatrix found = open({.fractional = FractionalCounts::accept});
  EXPECT_EQ(found.source(), "X");
  EXPECT_TRUE(lists(found.warnings(), "corrected counts"));
}

TEST_F(AnnDataCounts, RealCountsComeBeforeCorrectedOnes) {
  test::put_sparse(file_, "layers/counts", corrected(counts_));
  test::put_sparse(file_, "X", counts_);
  const CountMatrix found = open({.fractional = FractionalCounts::accept});
  EXPECT_EQ(found.source(), "X");
  EXPECT_TRUE(lists(found.notes(), "not counts: layers/counts: fractions"));
}

TEST_F(AnnDataCounts, WhatIsNotCountsIsRefusedWithItsReason) {
  const Table cp10k = normalised(counts_, 1e4);
  Table infinite = counts_, missing = counts_;
  infinite.at(3, 4) = std::numeric_limits<float>::infinity();
  missing.at(3, 4) = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::pair<Table, std::string>> cases = {
      {cp10k, "normalised: every cell sums to 10000"},
      {logged(cp10k), "log-normalised: exp(x) - 1 sums to 10000 in every cell"},
      {logged(normalised(counts_, 1e6)), "log-normalised: exp(x) - 1 sums to 1e+06"},
      {logged(counts_), "the logarithm of counts: exp(x) - 1 takes whole numbers"},
      {changed(counts_, [](float value) { return std::sqrt(value); }), "the largest value is 6.32"},
      {changed(logged(cp10k), [](float value) { return value - 1.0f; }), "negative values"},
      {infinite, "not finite: inf in cell 3, column 4"},
      {missing, "not finite: nan in cell 3, column 4"},
  };
  for (const auto& [table, reason] : cases) {
    start(kCells, test::gene_ids(kGenes));
    test::put_sparse(file_, "X", table);
    EXPECT_TRUE(holds(refusal(), "no matrix holds counts (X: "));
    EXPECT_TRUE(holds(refusal({.fractional = FractionalCounts::accept}), reason));
  }
}

TEST_F(AnnDataCounts, AGeneSubsetOfNormalisedValuesIsStillRecognised) {
  for (const bool logarithm : {true, false}) {
    const Table values = logarithm ? logged(normalised(counts_, 1e4)) : normalised(counts_, 1e4);
    start(kCells, test::gene_ids(50));
    test::put_dense(file_, "X", first_genes(values, 50));
    EXPECT_TRUE(holds(refusal({.fractional = FractionalCounts::accept}), "whole multiples of one"));
  }
}

TEST_F(AnnDataCounts, FilesWithoutWhatIsNeededAreRefused) {
  EXPECT_TRUE(holds(refusal(), "holds no matrix, neither X nor raw/X nor a layer"));
  start(0, test::gene_ids(kGenes));
  test::put_sparse(file_, "X", Table{0, kGenes, {}});
  EXPECT_TRUE(holds(refusal(), ".h5ad:/obs: holds no cells"));
  start(kCells, test::gene_ids(kGenes - 1));
  test::put_sparse(file_, "X", counts_);
  EXPECT_TRUE(holds(refusal(), "/X: 41 × 67, wanted 41 cells (obs) × 66 genes (var)"));
  file_ = Hdf5::create(path_ = folder_ / "plain.h5");
  EXPECT_TRUE(holds(refusal(), "no .h5ad file"));
}

// ---- whose genes ------------------------------------------------------------------------------------------------------------

class AnnDataGenes : public AnnDataCounts {
 protected:
  Texts symbols_;
  void SetUp() override {
    for (std::uint64_t gene = 0; gene < kGenes; ++gene) symbols_.push_back(fmt::format("Sym{}", gene));
  }
  void start(const Texts& index, const std::string& column = "", const Texts& values = {}) {
    AnnDataCounts::start(kCells, index);
    test::put_sparse(file_, "X", counts_);
    if (column.empty()) return;
    write_string_array(file_.at("var"), column, values);
    file_.at("var").set("column-order", Texts{column});
  }
  Texts ids(const std::string& prefix, const std::string& suffix = "") const {
    Texts out;
    for (std::uint64_t gene = 0; gene < kGenes; ++gene) out.push_back(fmt::format("{}{:011}{}", prefix, gene, suffix));
    return out;
  }
};

TEST_F(AnnDataGenes, VersionsAreCutOff) {
  start(ids("ENSG", ".15"), "gene_name", symbols_);
  const CountMatrix found = open();
  EXPECT_EQ(found.gene_ids(), test::gene_ids(kGenes));
  EXPECT_EQ(found.gene_names(), symbols_);
}

TEST_F(AnnDataGenes, AColumnServesWhenTheIndexHoldsSymbols) {
  for (const char* column : {"gene_ids", "ensembl_id", "gene_id", "feature_id"}) {
    start(symbols_, column, ids("ENSG"));
    const CountMatrix found = open();
    EXPECT_EQ(found.gene_ids(), test::gene_ids(kGenes));
    EXPECT_EQ(found.gene_names(), symbols_);
    EXPECT_TRUE(lists(found.notes(), fmt::format("gene ids: var {} (100.0 % Ensembl ids)", column)));
  }
}

TEST_F(AnnDataGenes, HalfTheIdsAreEnoughAndLessIsNot) {
  Texts mixed = symbols_;
  for (std::uint64_t gene = 0; gene < 34; ++gene) mixed[gene] = test::gene_id(gene);  // 34 of 67
  start(mixed);
  EXPECT_EQ(open().gene_ids(), mixed);
  mixed[33] = "Sym33";
  start(mixed);
  EXPECT_TRUE(holds(refusal(), "no column of Ensembl gene ids (share of Ensembl ids: index 49.3 %; first entries: ENSG00000000000, "));
}

TEST_F(AnnDataGenes, OtherSpeciesAreRefusedByName) {
  start(ids("ENSMUSG"));
  EXPECT_TRUE(holds(refusal(), ".h5ad:/var: the genes are those of mouse (Mus musculus) (100.0 % of the ids)"));
  start(symbols_, "gene_ids", ids("ENSRNOG", ".2"));
  EXPECT_TRUE(holds(refusal(), "rat (Rattus norvegicus)"));
  start(ids("ENSXYZG"));
  EXPECT_TRUE(holds(refusal(), "another species (ENSXYZG…)"));
}

TEST_F(AnnDataGenes, SymbolsAreLookedUpExactlyAndOnlyWhenAskedFor) {
  const std::vector<KnownGene> known{
      {"ENSG00000000001", "Sym1"}, {"ENSG00000000002", "SYM2"}, {"ENSG00000000003", "Sym3"}, {"ENSG00000000009", "Sym3"}};
  start(symbols_);
  EXPECT_TRUE(holds(refusal({.genes = {.known = known}}), "--gene-names"));
  const CountMatrix found = open({.genes = {.names = GeneNames::accept, .known = known}});
  EXPECT_EQ(found.gene_ids()[1], "ENSG00000000001");
  EXPECT_EQ(found.gene_ids()[2], "Sym2");
  EXPECT_EQ(found.gene_ids()[3], "Sym3");
  EXPECT_TRUE(lists(found.notes(), "gene names: 1 of 67 found exactly"));
  EXPECT_TRUE(lists(found.warnings(), "1 gene names stand for several genes and are not used: Sym3"));
}

TEST(EnsemblIds, AreToldFromOtherNames) {
  for (const char* id : {"ENSG00000000003", "ENSG00000000003.15", "ENSGR0000265658", "ENSMUSG00000000001.4"})
    EXPECT_TRUE(is_ensembl_gene(id)) << id;
  for (const char* id : {"", "ENSG", "TP53", "ENST00000000233", "ENSG0000", "ERCC-00002", "ENSG00000000003x", "ens0000000000"})
    EXPECT_FALSE(is_ensembl_gene(id)) << id;
  EXPECT_EQ(without_version("ENSG00000000003.15"), "ENSG00000000003");
  EXPECT_EQ(without_version("AC000001.2"), "AC000001.2");
  EXPECT_FALSE(foreign_species("ENSGR0000265658").has_value());
}

// ---- the three figures ------------------------------------------------------------------------------------------------------

TEST(GeneCoverage, CountsSharesOfColumnsCountsAndVocabulary) {
  const Texts ids{"a", "b", "c", "a", "d"}, names{"A", "B", "", "A", "D"};
  const std::vector<double> totals{30, 20, 10, 30, 10};
  const Coverage found = coverage(ids, names, totals, Texts{"a", "c", "x", "y"});
  EXPECT_DOUBLE_EQ(found.id_match, 3.0 / 5);
  EXPECT_DOUBLE_EQ(found.counts_known, 0.7);
  EXPECT_DOUBLE_EQ(found.breadth, 0.5);
  ASSERT_EQ(found.missing.size(), 2u);
  EXPECT_EQ(found.missing[0], (std::pair<std::string, double>("B (b)", 0.2)));
  EXPECT_TRUE(found.warnings.empty());
  EXPECT_FALSE(found.refusal.has_value());
}

TEST(GeneCoverage, FewKnownCountsAreWarnedOfAndVeryFewRefused) {
  const Texts ids{"a", "b"}, names{"", ""}, vocabulary{"a"};
  const auto figures = [&](double known) { return coverage(ids, names, std::vector<double>{known, 1000 - known}, vocabulary); };
  EXPECT_TRUE(figures(600).warnings.empty());
  EXPECT_TRUE(lists(figures(599).warnings, "only 59.9 % of the counts lie in genes the vocabulary knows; largest missing genes: b 40.1 %"));
  EXPECT_FALSE(figures(300).refusal.has_value());
  ASSERT_TRUE(figures(299).refusal.has_value());
  EXPECT_TRUE(
      holds(message_of<DataError>([&] { require(figures(299), LowCoverage::refuse, "in.h5ad"); }), "in.h5ad: only 29.9 % of the counts"));
  EXPECT_NO_THROW(require(figures(299), LowCoverage::accept, "in.h5ad"));
}

TEST(GeneCoverage, AFileWithFewOfTheVocabularysGenesIsAPanel) {
  Texts vocabulary;
  for (int i = 0; i < 100; ++i) vocabulary.push_back(std::to_string(i));
  const auto figures = [&](size_t genes) {
    return coverage(std::span(vocabulary).first(genes), Texts(genes), std::vector<double>(genes, 1.0), vocabulary);
  };
  EXPECT_TRUE(figures(50).warnings.empty());
  EXPECT_TRUE(lists(figures(49).warnings, "gene subset or panel: 49.0 %"));
  EXPECT_FALSE(figures(5).refusal.has_value());
  EXPECT_TRUE(holds(*figures(4).refusal, "only 4.0 % of the vocabulary's genes"));
}

TEST(RealCells, OfThePbmcFileAreReadWhole) {
  const CountMatrix found = open_counts(test::data("data/pbmc3k.h5ad"));
  EXPECT_EQ(found.n_cells(), 2111u);
  EXPECT_EQ(found.n_genes(), 32738u);
  EXPECT_EQ(found.source(), "X");
  const Categorical types = found.cells().categorical("cell_type");
  EXPECT_EQ(types.categories.size(), 9u);
  const std::vector<double> stored = found.cells().numbers("n_counts");
  found.for_each_block(500, [&](const CsrBlock& block) {
    const std::vector<float> sums = n_counts_of(block.view());
    for (size_t row = 0; row < sums.size(); ++row) ASSERT_EQ(sums[row], static_cast<float>(stored[block.first + row])) << block.first + row;
  });
}

}  // namespace
}  // namespace lc
