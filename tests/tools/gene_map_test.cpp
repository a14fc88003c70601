#include "tools/anndata/gene_map.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "tools/anndata/genes.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;

constexpr const char* kA = "ENSG00000000001";
constexpr const char* kB = "ENSG00000000002";

class GeneMaps : public testing::Test {
 protected:
  GeneMap map(const std::string& text) { return write_file(folder_ / "map.tsv", text), GeneMap::read(folder_ / "map.tsv"); }
  GeneMap orthologs(const std::string& text) { return write_file(folder_ / "map.tsv", text), GeneMap::read_orthologs(folder_ / "map.tsv"); }
  test::TemporaryFolder folder_;
};

TEST_F(GeneMaps, HeadersCommentsVersionsAndGenesWithoutACurrentIdArePassedOver) {
  const GeneMap m = map(fmt::format("old\tnew\n# by hand\nENSG00000000009.3\t{}.7\textra\nENSG00000000008\t\r\n", kA));
  ASSERT_TRUE(m.find("ENSG00000000009"));
  EXPECT_EQ(*m.find("ENSG00000000009"), kA);
  EXPECT_EQ(m.size(), 1u);
  EXPECT_FALSE(m.find("ENSG00000000008"));
}

TEST_F(GeneMaps, ANameOfTwoGenesIsOfNone) {
  const GeneMap m = map(fmt::format("SEPT6\t{}\nMARCH1\t{}\nMARCH1\t{}\n", kA, kA, kB));
  EXPECT_TRUE(m.find("SEPT6"));
  EXPECT_FALSE(m.find("MARCH1"));
  EXPECT_EQ(m.ambiguous(), (std::vector<std::string>{"MARCH1"}));
}

TEST_F(GeneMaps, WrongLinesAreNamed) {
  EXPECT_TRUE(holds(message_of<DataError>([&] { map("a b\n"); }), "map.tsv, line 1: wanted two columns"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { map(fmt::format("x\t{}\ny\tSEPTIN6\n", kA)); }), "line 2: 'SEPTIN6'"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { map("old\tnew\n"); }), "no gene is mapped"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { map(fmt::format("x\t{}\n\t{}\n", kA, kB)); }), "line 2: the first column is empty"));
}

TEST_F(GeneMaps, OrthologsWithSeveralPartnersOnEitherSideAreLeftOut) {
  const std::string m = "ENSMUSG0000000000";
  const GeneMap found = orthologs(fmt::format("{0}1\t{1}\n{0}2\t{2}\n{0}3\t{2}\n{0}4\t{1}\n{0}4\t{2}\n", m, kA, kB));
  EXPECT_TRUE(found.find(m + "1"));
  EXPECT_EQ(found.size(), 1u);
  EXPECT_EQ(found.ambiguous(), (std::vector<std::string>{m + "2", m + "3", m + "4"}));
}

TEST_F(GeneMaps, RetiredIdsAreReplacedAndMouseGenesReadAsTheirOrthologs) {
  const GeneTable mouse{"a.h5ad:/var", "var", {"ENSMUSG00000000001", "ENSMUSG00000000002.4"}, {}};
  EXPECT_TRUE(holds(message_of<DataError>([&] { choose_gene_ids(mouse, {}); }), "--orthologs"));
  GeneRules rules;
  rules.orthologs = orthologs(fmt::format("ENSMUSG00000000001\t{}\n", "ENSG00000000009"));
  rules.renamed = map(fmt::format("ENSG00000000009\t{}\n", kA));
  const GeneIds ids = choose_gene_ids(mouse, rules);
  EXPECT_EQ(ids.ids, (std::vector<std::string>{kA, "ENSMUSG00000000002"}));
  EXPECT_TRUE(ids.cross_species);
  EXPECT_TRUE(holds(ids.warnings.front(), "not validated"));
}

TEST_F(GeneMaps, AnAliasIsLookedUpAfterTheExactName) {
  const GeneTable table{"a.h5ad:/var", "var", {"SEPTIN6", "SEPT6", "septin6", "TWICE"}, {}};
  GeneRules rules;
  rules.names = GeneNames::accept;
  rules.known = {{kA, "SEPTIN6"}, {kB, "TWICE"}, {kA, "TWICE"}};
  rules.renamed = map(fmt::format("SEPT6\t{}\nSEPTIN6\t{}\n", kA, kB));
  const GeneIds ids = choose_gene_ids(table, rules);
  EXPECT_EQ(ids.ids, (std::vector<std::string>{kA, kA, "septin6", "TWICE"}));
  EXPECT_TRUE(holds(ids.notes.front(), "1 of 4 found exactly among the known genes, 1 by alias"));
  EXPECT_TRUE(holds(ids.warnings.front(), "TWICE"));
}

}  // namespace
}  // namespace lc
