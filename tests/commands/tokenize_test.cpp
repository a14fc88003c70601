// From counts to a corpus: labels, duplicates, the funnel, and what is refused.
#include "tools/commands/tokenize.h"

#include <gtest/gtest.h>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "tools/commands/vocab.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;

struct Tokenize : testing::Test {
  test::TemporaryFolder folder;
  TokenizeOptions options;

  void SetUp() override {
    options.inputs = {test::data("data/pbmc3k.h5ad")};
    options.genes = GeneVocabulary::read(test::data("data/geneformer_v1_genes.tsv"));
    options.texts = Texts::read(test::data("data/pbmc3k_texts.json"));
    options.label_key = "cell_type";
    options.out = folder / "c.h5";
  }
};

TEST_F(Tokenize, GivesEveryCellItsText) {
  const Funnel funnel = tokenize(options);
  EXPECT_EQ(funnel.read, 2111u);
  EXPECT_EQ(funnel.kept, 2111u);
  const Corpus corpus = Corpus::open(options.out);
  EXPECT_NO_THROW(corpus.verify());
  EXPECT_EQ(corpus.vocabulary().hash(), options.genes.hash());
  EXPECT_EQ(corpus.funnel().json(), funnel.json());
  EXPECT_NEAR(corpus.inputs().at(0).counts_known, 0.966, 0.001);
  const auto labels = corpus.column("label");
  for (std::uint64_t cell = 0; cell < corpus.cells(); ++cell) {
    const LabelTexts& text = options.texts.labels.at(static_cast<size_t>(corpus.group_id(cell)));
    ASSERT_EQ(text.label, labels[cell]);
    ASSERT_EQ(text.texts.at(0), corpus.all_texts()[static_cast<size_t>(corpus.text_id(cell))]);
  }
}

TEST_F(Tokenize, DropsCellsThatItHasSeen) {
  options.inputs.push_back(options.inputs.front());
  Funnel funnel = tokenize(options);
  EXPECT_EQ(funnel.read, 4222u);
  EXPECT_EQ(funnel.kept, 2111u);
  EXPECT_EQ(funnel.dropped.at(0), (std::pair<std::string, std::uint64_t>{"duplicate", 2111}));
  options.duplicates = Duplicates::keep;
  options.existing = Existing::replace;
  EXPECT_EQ(tokenize(options).kept, 4222u);
}

TEST_F(Tokenize, ListsEveryLabelWithoutAText) {
  options.texts = Texts::parse(R"({"B": "a b cell", "NK": "a killer"})", "T.json");
  const std::string message = message_of<DataError>([&] { tokenize(options); });
  for (const char* label : {"7 labels", "'CD14+ Mono' (384 cells)", "'DC'", "'Platelet'", "--allow-missing"})
    EXPECT_TRUE(holds(message, label));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  options.missing = MissingLabels::keep;
  EXPECT_EQ(tokenize(options).noted.at(2).second, 2111u - 275u - 124u);
}

TEST_F(Tokenize, CutsToTheGenesAskedFor) {
  options.max_genes = 33;
  tokenize(options);
  const Corpus corpus = Corpus::open(options.out);
  EXPECT_EQ(corpus.tokens(), 33u * 2111u);
}

TEST_F(Tokenize, RefusesWhatItCannotDo) {
  options.label_key = "celltype";
  EXPECT_TRUE(holds(message_of<DataError>([&] { tokenize(options); }), "no column 'celltype'; there are: cell_type, n_counts"));
  options.label_key = "cell_type";
  options.columns = {"donor"};
  EXPECT_TRUE(holds(message_of<DataError>([&] { tokenize(options); }), "no column 'donor'"));
  options.columns = {"label"};
  EXPECT_TRUE(holds(message_of<UsageError>([&] { tokenize(options); }), "--obs label"));
  options.columns = {};
  options.out = options.inputs.front();
  EXPECT_TRUE(holds(message_of<UsageError>([&] { tokenize(options); }), "one of the inputs"));
}

TEST_F(Tokenize, TakesAVocabularyMadeFromTheSameFile) {
  options.genes = gene_vocabulary_of(options.inputs, {}, [](const std::string&) {});
  EXPECT_EQ(options.genes.genes().size(), 16126u);
  tokenize(options);
  EXPECT_EQ(Corpus::open(options.out).inputs().at(0).counts_known, 1.0);
}

}  // namespace
}  // namespace lc
