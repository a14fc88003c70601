#include <gtest/gtest.h>

#include <fstream>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "tests/tools/anndata_files.h"
#include "tools/anndata/counts.h"
#include "tools/anndata/subset.h"
#include "tools/anndata/writer.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;
using test::Table;
using test::TemporaryFolder;
using Texts = std::vector<std::string>;
using Codes = std::vector<std::int32_t>;

constexpr std::uint64_t kCellsIn = 33, kGenesIn = 21;

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

Texts names_in(const std::filesystem::path& folder) {
  Texts names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

class AnnDataWriting : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::filesystem::path in_ = folder_ / "in.h5ad", out_ = folder_ / "out.h5ad";
  Table counts_ = test::random_counts(kCellsIn, kGenesIn);

  void SetUp() override {  // obs as anndata 0.7 wrote it
    Hdf5 file = test::start_h5ad(in_, kCellsIn, test::gene_ids(kGenesIn));
    test::put_sparse(file, "X", counts_, test::Axis::cells, {.gzip = 4});
    const Hdf5 obs = file.at("obs");
    const Hdf5 categories = obs.write_strings("__categories/old", Texts{"z", "a"});
    std::vector<std::int8_t> codes(kCellsIn, 1);
    codes[0] = -1;
    obs.write<std::int8_t>("old", codes).set_reference("categories", categories);
    obs.set("encoding-version", "0.1.0");
    obs.set("column-order", Texts{"old"});
    file.group("stranger").set("unknown", "kept");
    file.close();
  }
  AnnDataWriter copy(Existing existing = Existing::refuse) { return AnnDataWriter::copy_of(in_, out_, existing); }
};

TEST_F(AnnDataWriting, ResultsAreAddedAndTheRestStays) {
  const std::string before = bytes_of(in_);
  AnnDataWriter writer = copy();
  Codes codes(kCellsIn, 2);
  codes[1] = -1;
  writer.obs("label", Categorical{codes, {"second", "first", "third"}, Ordered::no});
  std::vector<float> scores(kCellsIn, 0.25f);
  writer.obs("score", std::span<const float>(scores));
  const Texts reasons(kCellsIn, "ok");
  writer.obs("reason", std::span<const std::string>(reasons));
  const std::vector<H5Bool> flags(kCellsIn, H5Bool::yes);
  writer.obs("unassigned", std::span<const H5Bool>(flags));
  const Hdf5 z = writer.obsm("X_z", 3);
  for (std::uint64_t cell = 0; cell < kCellsIn; cell += 11) z.write_rows<float>(cell, std::vector<float>(33, static_cast<float>(cell)));
  writer.uns("langcell", {{"alpha", 0.1}, {"texts", {"a", "b/c"}}, {"deep", {{"n", 3}, {"none", nullptr}}}});
  writer.commit();

  EXPECT_EQ(bytes_of(in_), before);
  EXPECT_EQ(names_in(folder_.path()), (Texts{"in.h5ad", "out.h5ad"}));
  const Hdf5 file = Hdf5::open(out_);
  const Frame obs(file.at("obs"));
  EXPECT_EQ(obs.columns(), (Texts{"old", "label", "score", "reason", "unassigned"}));
  EXPECT_EQ(obs.categorical("label").categories, (Texts{"second", "first", "third"}));
  EXPECT_EQ(obs.categorical("label").codes, codes);
  EXPECT_EQ(obs.categorical("old").categories, (Texts{"z", "a"}));
  EXPECT_EQ(obs.categorical("old").codes[0], -1);
  EXPECT_EQ(obs.group().text("encoding-version"), "0.1.0");
  EXPECT_EQ(file.at("obs/score").read<float>(), scores);
  EXPECT_EQ(file.at("obs/unassigned").kind(), H5Kind::boolean);
  EXPECT_EQ(file.at("obsm/X_z").shape(), (Hdf5::Shape{kCellsIn, 3}));
  EXPECT_EQ(file.at("obsm/X_z").read_rows<float>(12, 13), (std::vector<float>{11, 11, 11}));
  EXPECT_EQ(file.at("uns/langcell/texts").read_strings(), (Texts{"a", "b/c"}));
  EXPECT_EQ(file.at("uns/langcell/deep/n").read<int>(), std::vector<int>{3});
  EXPECT_FALSE(file.has("uns/langcell/deep/none"));
  EXPECT_EQ(file.at("stranger").text("unknown"), "kept");
  EXPECT_EQ(open_counts(out_).read_rows(0, kCellsIn).values, open_counts(in_).read_rows(0, kCellsIn).values);
}

TEST_F(AnnDataWriting, AKeyThatIsThereNeedsOverwrite) {
  const std::vector<float> ones(kCellsIn, 1.0f);
  {
    AnnDataWriter writer = copy();
    EXPECT_TRUE(holds(message_of<UsageError>([&] { writer.obs("old", std::span<const float>(ones)); }), "obs/old is in the input already"));
    EXPECT_TRUE(holds(message_of<UsageError>([&] { writer.obs("_index", std::span<const float>(ones)); }), "_index"));
    EXPECT_TRUE(holds(message_of<UsageError>([&] { writer.obs("a/b", std::span<const float>(ones)); }), "'a/b'"));
  }
  EXPECT_EQ(names_in(folder_.path()), Texts{"in.h5ad"});
  AnnDataWriter writer = copy(Existing::replace);
  writer.obs("old", std::span<const float>(ones));
  writer.commit();
  const Frame obs(Hdf5::open(out_).at("obs"));
  EXPECT_EQ(obs.columns(), Texts{"old"});
  EXPECT_EQ(obs.numbers("old"), std::vector<double>(kCellsIn, 1.0));
}

TEST_F(AnnDataWriting, NothingIsLeftWithoutCommitAndNothingIsOverwrittenUnasked) {
  {
    AnnDataWriter writer = copy();
    writer.uns("a", "text");
  }
  EXPECT_EQ(names_in(folder_.path()), Texts{"in.h5ad"});
  EXPECT_TRUE(
      holds(message_of<UsageError>([&] { AnnDataWriter::copy_of(in_, in_, Existing::replace); }), "in.h5ad: the output is the input"));
  std::ofstream(out_) << "keep me";
  EXPECT_TRUE(holds(message_of<UsageError>([&] { copy(); }), "out.h5ad exists already"));
  EXPECT_EQ(bytes_of(out_), "keep me");
  EXPECT_TRUE(
      holds(message_of<DataError>([&] { AnnDataWriter::copy_of(out_, folder_ / "more.h5ad", Existing::refuse); }), "not an HDF5 file"));
  EXPECT_TRUE(
      holds(message_of<ResourceError>([&] { AnnDataWriter::copy_of(in_, folder_ / "nowhere/x.h5ad", Existing::refuse); }), "nowhere"));
  EXPECT_EQ(names_in(folder_.path()), (Texts{"in.h5ad", "out.h5ad"}));
}

TEST_F(AnnDataWriting, AReadOnlyInputGivesAWritableCopy) {
  std::filesystem::permissions(in_, std::filesystem::perms::owner_read);
  AnnDataWriter writer = copy();
  writer.uns("a", 1.5);
  writer.commit();
  EXPECT_NE(std::filesystem::status(out_).permissions() & std::filesystem::perms::owner_write, std::filesystem::perms::none);
}

TEST_F(AnnDataWriting, PresentKeysAreFoundBeforehand) {
  EXPECT_EQ(keys_present(in_, Texts{"obs/old", "obs/new", "obsm/X", "uns/langcell", "stranger"}), (Texts{"obs/old", "stranger"}));
}

TEST_F(AnnDataWriting, AFreshFileHasCountsNamesAndColumns) {
  Texts symbols;
  for (std::uint64_t gene = 0; gene < kGenesIn; ++gene) symbols.push_back(fmt::format("G{}", gene));
  AnnDataWriter writer =
      AnnDataWriter::fresh({test::cell_names(kCellsIn), test::gene_ids(kGenesIn), {{"gene_name", symbols}}}, out_, Existing::refuse);
  const CountMatrix source = open_counts(in_);
  source.for_each_block(10, [&](const CsrBlock& block) { writer.append_x(block); });
  writer.obs("type", categorical_of(Texts(kCellsIn, "x")));
  writer.commit();
  const CountMatrix found = open_counts(out_);
  EXPECT_EQ(found.gene_names(), symbols);
  EXPECT_EQ(found.cells().names(), test::cell_names(kCellsIn));
  EXPECT_EQ(found.cells().categorical("type").categories, Texts{"x"});
  EXPECT_EQ(found.read_rows(0, kCellsIn).values, source.read_rows(0, kCellsIn).values);
  EXPECT_EQ(found.read_rows(0, kCellsIn).genes, source.read_rows(0, kCellsIn).genes);
}

TEST_F(AnnDataWriting, AFreshFileWithRowsMissingIsNotCommitted) {
  AnnDataWriter writer = AnnDataWriter::fresh({test::cell_names(kCellsIn), test::gene_ids(kGenesIn)}, out_, Existing::refuse);
  writer.append_x(open_counts(in_).read_rows(0, kCellsIn - 1));
  EXPECT_TRUE(holds(message_of<ShapeError>([&] { writer.commit(); }), "wanted 33 rows, got 32"));
}

TEST_F(AnnDataWriting, JsonOfAnotherFormIsRefused) {
  AnnDataWriter writer = copy();
  EXPECT_TRUE(holds(message_of<ShapeError>([&] { writer.uns("a", {{"x/y", 1}}); }), "'x/y'"));
  EXPECT_TRUE(holds(message_of<ShapeError>([&] { writer.uns("b", {{"mixed", {1, "two"}}}); }), "one kind"));
  EXPECT_TRUE(holds(message_of<ShapeError>([&] {
                      writer.obs("twice", Categorical{Codes(kCellsIn, 0), {"a", "a"}, Ordered::no});
                    }),
                    "distinct categories"));
  const std::vector<float> few(kCellsIn - 1);
  EXPECT_TRUE(holds(message_of<ShapeError>([&] { writer.obs("few", std::span<const float>(few)); }), "wanted 33 entries, got 32"));
}

// ---- some cells of a file ---------------------------------------------------------------------------------------------------

TEST_F(AnnDataWriting, ChosenCellsKeepTheirRowsInEveryForm) {
  Hdf5 file = Hdf5::edit(in_);
  test::put_sparse<double, std::int64_t>(file, "layers/csc", counts_, test::Axis::genes);
  test::put_dense<std::uint16_t>(file, "layers/dense", counts_);
  const Table square = test::random_counts(kCellsIn, kCellsIn);
  test::put_sparse(file, "obsp/csr", square);
  test::put_sparse(file, "obsp/csc", square, test::Axis::genes);
  test::put_dense(file, "obsp/dense", square);
  file.close();
  const std::vector<std::uint64_t> rows{0, 1, 2, 9, 31, 32};
  EXPECT_TRUE(write_cells_of(in_, rows, out_, Existing::refuse).empty());

  const Hdf5 cut = Hdf5::open(out_);
  const Frame obs(cut.at("obs"));
  EXPECT_EQ(obs.index(), (Texts{"cell0", "cell1", "cell2", "cell9", "cell31", "cell32"}));
  EXPECT_EQ(obs.categorical("old").codes, (Codes{-1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(cut.at("obs/old").referenced("categories").where(), out_.string() + ":/obs/__categories/old");
  EXPECT_EQ(cut.at("stranger").text("unknown"), "kept");
  EXPECT_EQ(cut.at("layers/csc/data").item_bytes(), 8u);
  EXPECT_EQ(cut.at("layers/dense").item_bytes(), 2u);
  const auto expect_cut = [&](const std::string& path, const Table& table, const std::vector<std::uint64_t>& columns) {
    const auto matrix = open_matrix(cut.at(path));
    ASSERT_EQ(matrix->cells(), rows.size()) << path;
    ASSERT_EQ(matrix->genes(), columns.size()) << path;
    const CsrBlock block = matrix->read_rows(0, rows.size());
    Table found{rows.size(), columns.size(), std::vector<float>(rows.size() * columns.size(), 0.0f)};
    for (size_t row = 0; row < rows.size(); ++row)
      for (size_t i = 0; i < block.genes_of(row).size(); ++i)
        found.at(row, static_cast<std::uint64_t>(block.genes_of(row)[i])) = block.values_of(row)[i];
    for (size_t row = 0; row < rows.size(); ++row)
      for (size_t column = 0; column < columns.size(); ++column)
        EXPECT_EQ(found.at(row, column), table.at(rows[row], columns[column])) << path;
  };
  std::vector<std::uint64_t> genes;
  for (std::uint64_t gene = 0; gene < kGenesIn; ++gene) genes.push_back(gene);
  for (const char* path : {"X", "layers/csc", "layers/dense"}) expect_cut(path, counts_, genes);
  for (const char* path : {"obsp/csr", "obsp/csc", "obsp/dense"}) expect_cut(path, square, rows);
}

TEST_F(AnnDataWriting, WhatCannotBeCutIsLeftOutAndNamed) {
  Hdf5 file = Hdf5::edit(in_);
  file.group("obsm/awkward").set("encoding-type", "awkward-array");
  file.close();
  const std::vector<std::string> left_out = write_cells_of(in_, std::vector<std::uint64_t>{3}, out_, Existing::refuse);
  ASSERT_EQ(left_out.size(), 1u);
  EXPECT_TRUE(holds(left_out[0], "in.h5ad:/obsm/awkward is left out: encoding 'awkward-array'"));
  EXPECT_FALSE(Hdf5::open(out_).has("obsm/awkward"));
}

}  // namespace
}  // namespace lc
