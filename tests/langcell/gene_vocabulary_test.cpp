// genes.tsv and medians from data.
#include "models/langcell/data/gene_vocabulary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;

const std::string kHead = "token_id\tensembl_id\tgene_name\tmedian\n0\t<pad>\t\t\n1\t<mask>\t\t\n";

std::string refused_genes(const std::string& tsv) {
  return message_of<DataError>([&] { GeneVocabulary::parse(tsv, "G.tsv"); });
}

TEST(GeneVocabulary, ReadsThePublishedFileAndPutsClsLast) {
  const auto genes = GeneVocabulary::read(test::data("data/geneformer_v1_genes.tsv"));
  EXPECT_EQ(genes.size(), 25427);
  EXPECT_EQ(genes.cls(), 25426);
  EXPECT_EQ(genes.token_of("ENSG00000000003"), 2);
  EXPECT_EQ(genes.token_of("ENSG00000000003.15"), 2);
  EXPECT_EQ(genes.token_of("ENSGR0000265658"), 25425);
  EXPECT_EQ(genes.token_of("<cls>"), -1);
  EXPECT_EQ(genes.token_of("<pad>"), -1);
  EXPECT_EQ(genes.gene(3).name, "TNMD");
  EXPECT_EQ(genes.medians()[3], 3.2282132031640383);
  EXPECT_EQ(genes.medians().size(), 25427u);
}

TEST(GeneVocabulary, WritesTheBytesThatItRead) {
  const auto path = test::data("data/geneformer_v1_genes.tsv");
  EXPECT_EQ(GeneVocabulary::read(path).tsv(), read_file(path));
}

TEST(GeneVocabulary, HashForgetsNamesAndRemembersMedians) {
  const auto one = GeneVocabulary::parse(kHead + "2\tENSG01\tA\t1.5\n", "x"),
             renamed = GeneVocabulary::parse(kHead + "2\tENSG01\tB\t1.50\n", "x");
  const auto other = GeneVocabulary::parse(kHead + "2\tENSG01\tA\t1.6\n", "x");
  EXPECT_EQ(one.hash(), renamed.hash());
  EXPECT_NE(one.hash(), other.hash());
}

TEST(GeneVocabulary, TakesRowsInAnyOrderAndCarriageReturns) {
  const auto genes = GeneVocabulary::parse(
      "token_id\tensembl_id\tgene_name\tmedian\r\n3\tENSG02\t\t2\r\n1\t<mask>\t\t\r\n2\tENSG01\t\t1\r\n0\t<pad>\t\t", "x");
  EXPECT_EQ(genes.token_of("ENSG02"), 3);
  EXPECT_EQ(genes.cls(), 4);
}

TEST(GeneVocabulary, NamesTheLineOfAMistake) {
  EXPECT_TRUE(holds(refused_genes("id\tmedian\n"), "G.tsv:1"));
  EXPECT_TRUE(holds(refused_genes(kHead + "2\tENSG01\tA\n"), "G.tsv:4: wanted 4 columns"));
  EXPECT_TRUE(holds(refused_genes(kHead + "2\tENSG01\tA\tnan\n"), "G.tsv:4: the median of ENSG01"));
  EXPECT_TRUE(holds(refused_genes(kHead + "2\tENSG01\tA\t0\n"), "above 0"));
  EXPECT_TRUE(holds(refused_genes(kHead + "x\tENSG01\tA\t1\n"), "token_id 'x'"));
  EXPECT_TRUE(holds(refused_genes(kHead + "2\tENSG01\tA\t1\n4\tENSG02\tB\t1\n"), "G.tsv:5: token ids must be 0, 1, 2"));
  EXPECT_TRUE(holds(refused_genes(kHead + "2\tENSG01\tA\t1\n3\tENSG01.7\tB\t1\n"), "G.tsv:5: ENSG01 is there already (line 4)"));
  EXPECT_TRUE(holds(refused_genes(kHead + "2\t<cls>\t\t\n"), "never a row"));
  EXPECT_TRUE(holds(refused_genes("token_id\tensembl_id\tgene_name\tmedian\n0\t<mask>\t\t\n"), "token 0 must be <pad>"));
  EXPECT_TRUE(holds(refused_genes(kHead), "no genes"));
  EXPECT_TRUE(holds(refused_genes(""), "no genes"));
  EXPECT_TRUE(holds(message_of<DataError>([] { GeneVocabulary::read("/nowhere/genes.tsv"); }), "/nowhere/genes.tsv"));
}

TEST(MedianBuilder, TakesTheMiddleOfTheNonZeroValues) {
  MedianBuilder builder;
  const std::vector<std::string> ids = {"ENSG03", "ENSG01.4", "", "ENSG02", "ENSG01"}, names = {"C", "A", "noise", "B", "A2"};
  builder.begin_matrix(ids, names);
  // Cell 0: ENSG03 2 of 8, ENSG01 1 + 3 of 8, nothing for ENSG02; the column without an id counts in the sum. Cell 1: ENSG03 1 of 10. Cell
  // 2: empty.
  const std::vector<std::int64_t> indptr = {0, 4, 6, 6};
  const std::vector<std::int32_t> columns = {0, 1, 2, 4, 0, 2};
  const std::vector<float> counts = {2, 1, 2, 3, 1, 9};
  builder.add({indptr, columns, counts});
  const GeneVocabulary genes = builder.finish();
  ASSERT_EQ(genes.genes().size(), 2u);  // ENSG02 is in no cell
  EXPECT_EQ(genes.gene(2).ensembl_id, "ENSG01");
  EXPECT_EQ(genes.gene(2).name, "A");
  EXPECT_EQ(genes.gene(2).median, 5000.0);
  EXPECT_EQ(genes.gene(3).ensembl_id, "ENSG03");
  EXPECT_EQ(genes.gene(3).median, (2500.0 + 1000.0) / 2);
}

TEST(MedianBuilder, EqualsSortingHoweverTheCellsAreCut) {
  std::mt19937 random(3);
  constexpr int kCells = 65, kGenes = 33;
  std::vector<std::string> ids;
  for (int g = 0; g < kGenes; ++g) ids.push_back("ENSG" + std::to_string(100 + (g * 7) % kGenes));
  MedianBuilder whole, pieces;
  whole.begin_matrix(ids, {});
  std::vector<std::int64_t> indptr = {0};
  std::vector<std::int32_t> columns;
  std::vector<float> counts;
  std::map<std::string, std::vector<double>> values;
  for (int c = 0; c < kCells; ++c) {
    const size_t begin = columns.size();
    double total = 0;
    for (int g = 0; g < kGenes; ++g)
      if (random() % 3 == 0) columns.push_back(g), counts.push_back(static_cast<float>(1 + random() % 9)), total += counts.back();
    for (size_t i = begin; i < columns.size(); ++i)
      values[ids[static_cast<size_t>(columns[i])]].push_back(static_cast<double>(counts[i] / static_cast<float>(total) * 10000.0f));
    indptr.push_back(static_cast<std::int64_t>(columns.size()));
    const std::vector<std::int64_t> one = {0, static_cast<std::int64_t>(columns.size() - begin)};
    if (c % 10 == 0) pieces.begin_matrix(ids, {});  // as if from another file
    pieces.add({one, std::span(columns).subspan(begin), std::span(counts).subspan(begin)});
  }
  whole.add({indptr, columns, counts});
  const GeneVocabulary a = whole.finish(), b = pieces.finish();
  EXPECT_EQ(a.tsv(), b.tsv());
  ASSERT_EQ(a.genes().size(), values.size());
  size_t i = 0;
  for (auto& [id, v] : values) {
    std::sort(v.begin(), v.end());
    const double median = v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
    EXPECT_EQ(a.genes()[i].ensembl_id, id);
    EXPECT_EQ(a.genes()[i++].median, median);
  }
}

TEST(MedianBuilder, RefusesCellsWithoutGenes) {
  MedianBuilder builder;
  builder.begin_matrix({}, {});
  EXPECT_TRUE(holds(message_of<DataError>([&] { builder.finish(); }), "no gene"));
}

}  // namespace
}  // namespace lc
