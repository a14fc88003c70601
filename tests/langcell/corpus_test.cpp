// corpus.h5 written and read back, and what its reader does not believe.
#include "models/langcell/data/corpus.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;
using TokenIds = std::vector<std::int32_t>;

GeneVocabulary genes(std::int32_t count) {
  std::vector<Gene> rows;
  for (std::int32_t i = 0; i < count; ++i)
    rows.push_back({"ENSG" + std::to_string(1000000 + i), i % 2 ? "" : "G" + std::to_string(i), 0.5 + i});
  return GeneVocabulary(std::move(rows));
}

Texts three_labels() {
  return Texts::parse(R"({"B": {"text": "b cell", "ontology_id": "CL:0000236"}, "T": ["t cell", "a t lymphocyte"], "NK": "killer"})",
                      "T.json");
}

struct Cell {
  std::string name;
  TokenIds tokens;
  std::int32_t group;
};

std::vector<Cell> some_cells(int count) {
  std::vector<Cell> cells;
  for (int i = 0; i < count; ++i) {
    cells.push_back({"cell " + std::to_string(i), {}, i % 4 - 1});
    for (int t = 0; t < (i * 7) % 33; ++t) cells.back().tokens.push_back(2 + (i + t * 3) % 40);
  }
  return cells;
}

std::string write(const std::filesystem::path& path, const std::vector<Cell>& cells, CorpusSetup setup) {
  CorpusWriter writer(path, std::move(setup));
  for (const Cell& cell : cells) {
    const std::vector<std::string> columns = {"donor " + std::to_string(cell.tokens.size() % 3)};
    writer.append({cell.name, cell.tokens, cell.group, columns});
  }
  const std::vector<CorpusInput> inputs = {{"a.h5ad", "00ff", "X", cells.size(), 0.75, 0.875, 0.5}};
  return writer.finish({cells.size() + 2, cells.size(), {{"duplicate", 2}}, {{"without text", 1}}}, inputs, {{"label_key", "cell_type"}});
}

CorpusSetup setup_of(std::int32_t gene_count, std::int64_t max_genes = 30) {
  return {genes(gene_count), three_labels(), {"donor"}, max_genes, Existing::replace};
}

class CorpusOfEachWidth : public testing::TestWithParam<std::int32_t> {};

TEST_P(CorpusOfEachWidth, ReadsWhatWasWritten) {
  const test::TemporaryFolder folder;
  const auto cells = some_cells(65);
  const std::string hash = write(folder / "c.h5", cells, setup_of(GetParam()));
  const Corpus corpus = Corpus::open(folder / "c.h5");
  ASSERT_EQ(corpus.cells(), cells.size());
  EXPECT_EQ(corpus.content_hash(), hash);
  EXPECT_NO_THROW(corpus.verify());
  EXPECT_EQ(corpus.vocabulary().hash(), genes(GetParam()).hash());
  EXPECT_EQ(corpus.vocabulary().gene(2).name, "G0");
  EXPECT_EQ(corpus.max_genes(), 30);
  const TokenIds first_text = {0, 1, 3}, type = {236, -1, -1};
  for (size_t i = 0; i < cells.size(); ++i) {
    TokenIds wanted = cells[i].tokens;
    wanted.resize(std::min<size_t>(wanted.size(), 30));
    ASSERT_EQ(corpus.length(i), static_cast<std::int64_t>(wanted.size()));
    TokenIds read(40, -7);
    read.resize(static_cast<size_t>(corpus.copy_tokens(i, read)));
    EXPECT_EQ(read, wanted);
    TokenIds best(std::min<size_t>(wanted.size(), 5));
    corpus.copy_tokens(i, best);
    EXPECT_TRUE(std::equal(best.begin(), best.end(), wanted.begin()));
    const auto group = static_cast<size_t>(cells[i].group);
    EXPECT_EQ(corpus.group_id(i), cells[i].group);
    EXPECT_EQ(corpus.text_id(i), cells[i].group < 0 ? -1 : first_text[group]);
    EXPECT_EQ(corpus.type_id(i), cells[i].group < 0 ? -1 : type[group]);
  }
  EXPECT_EQ(corpus.column("name")[64], "cell 64");
  EXPECT_EQ(corpus.column("donor")[1], "donor 1");
  EXPECT_FALSE(corpus.has_column("sex"));
}

TEST_P(CorpusOfEachWidth, LooksUpTheSameByCopies) {
  const test::TemporaryFolder folder;
  write(folder / "c.h5", some_cells(65), setup_of(GetParam()));
  const Corpus mapped = Corpus::open(folder / "c.h5");
  Corpus copied = Corpus::open(folder / "c.h5");
  copied.look_up_by_copies();
  for (std::uint64_t c = 0; c < 65; ++c) {
    EXPECT_EQ(copied.length(c), mapped.length(c));
    EXPECT_EQ(copied.group_id(c), mapped.group_id(c));
    EXPECT_EQ(copied.text_id(c), mapped.text_id(c));
    EXPECT_EQ(copied.type_id(c), mapped.type_id(c));
    TokenIds one(30), other(30);
    EXPECT_EQ(copied.copy_tokens(c, one), mapped.copy_tokens(c, other));
    EXPECT_EQ(one, other);
  }
  EXPECT_NO_THROW(copied.verify());
}

INSTANTIATE_TEST_SUITE_P(Genes, CorpusOfEachWidth, testing::Values(65, 65534));  // uint16, uint32

TEST(Corpus, KeepsTextsLabelsAndGroups) {
  const test::TemporaryFolder folder;
  write(folder / "c.h5", some_cells(3), setup_of(65));
  const Corpus corpus = Corpus::open(folder / "c.h5");
  ASSERT_EQ(corpus.texts().labels.size(), 3u);
  EXPECT_EQ(corpus.texts().labels[1].label, "T");
  EXPECT_EQ(corpus.texts().labels[1].texts, (std::vector<std::string>{"t cell", "a t lymphocyte"}));
  EXPECT_EQ(corpus.texts().labels[0].ontology_id, "CL:0000236");
  EXPECT_EQ(corpus.texts_of_group(1), (std::pair<std::int32_t, std::int32_t>{1, 3}));
  EXPECT_EQ(corpus.texts_of_group(2), (std::pair<std::int32_t, std::int32_t>{3, 4}));
  EXPECT_EQ(corpus.group_of_text(2), 1);
  EXPECT_EQ(corpus.all_texts()[3], "killer");
}

TEST(Corpus, KeepsFunnelInputsAndProvenance) {
  const test::TemporaryFolder folder;
  write(folder / "c.h5", some_cells(5), setup_of(65));
  const Corpus corpus = Corpus::open(folder / "c.h5");
  EXPECT_EQ(corpus.funnel().read, 7u);
  EXPECT_EQ(corpus.funnel().dropped.at(0).first, "duplicate");
  EXPECT_EQ(corpus.funnel().noted.at(0).second, 1u);
  EXPECT_EQ(corpus.inputs().at(0).sha256, "00ff");
  EXPECT_EQ(corpus.inputs().at(0).counts_known, 0.875);
  EXPECT_EQ(Hdf5::open(folder / "c.h5").text("label_key"), "cell_type");
}

TEST(Corpus, MayHoldNoCellsNoTokensAndNoTexts) {
  const test::TemporaryFolder folder;
  CorpusSetup setup = setup_of(65);
  setup.texts = {};
  write(folder / "none.h5", {}, setup);
  EXPECT_EQ(Corpus::open(folder / "none.h5").cells(), 0u);
  write(folder / "empty.h5", {{"a", {}, -1}, {"b", {}, -1}}, setup);
  const Corpus corpus = Corpus::open(folder / "empty.h5");
  EXPECT_EQ(corpus.cells(), 2u);
  EXPECT_EQ(corpus.tokens(), 0u);
  TokenIds out(3);
  EXPECT_EQ(corpus.copy_tokens(1, out), 0);
  EXPECT_NO_THROW(corpus.verify());
}

TEST(Corpus, PassesItsBuffersWithoutALoss) {  // more than one piece of scratch, one batch of names and one hash block
  const test::TemporaryFolder folder;
  constexpr int kCells = 9001, kTokens = 301;
  CorpusWriter writer(folder / "c.h5", {genes(65534), {}, {}, 2047, Existing::refuse});
  TokenIds tokens(kTokens);
  for (int i = 0; i < kCells; ++i) {
    for (int t = 0; t < kTokens; ++t) tokens[static_cast<size_t>(t)] = 2 + (i * 31 + t) % 65000;
    writer.append({std::to_string(i), tokens, -1});
  }
  writer.finish({}, {}, {});
  const Corpus corpus = Corpus::open(folder / "c.h5");
  ASSERT_EQ(corpus.cells(), static_cast<std::uint64_t>(kCells));
  for (int i = 0; i < kCells; ++i) {
    ASSERT_EQ(corpus.copy_tokens(static_cast<std::uint64_t>(i), tokens), kTokens);
    for (int t = 0; t < kTokens; ++t) ASSERT_EQ(tokens[static_cast<size_t>(t)], 2 + (i * 31 + t) % 65000);
  }
  EXPECT_EQ(corpus.column("name")[9000], "9000");
  EXPECT_NO_THROW(corpus.verify());
}

TEST(Corpus, AppearsOnlyWhenComplete) {
  const test::TemporaryFolder folder;
  {
    CorpusWriter writer(folder / "c.h5", setup_of(65));
    const std::vector<std::string> columns = {"x"};
    writer.append({"a", TokenIds{2}, 0, columns});
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Corpus, DoesNotReplaceUnlessTold) {
  const test::TemporaryFolder folder;
  write(folder / "c.h5", {}, setup_of(65));
  CorpusSetup setup = setup_of(65);
  setup.existing = Existing::refuse;
  EXPECT_TRUE(holds(message_of<UsageError>([&] { write(folder / "c.h5", {}, setup); }), "c.h5"));
}

std::string refused_after(const std::function<void(Hdf5&)>& damage) {
  const test::TemporaryFolder folder;
  write(folder / "c.h5", some_cells(9), setup_of(65));
  Hdf5 file = Hdf5::edit(folder / "c.h5");
  damage(file);
  file.close();
  return message_of<DataError>([&] {
    const Corpus corpus = Corpus::open(folder / "c.h5");
    corpus.verify();
  });
}

TEST(Corpus, RefusesDamage) {
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.set("format", "another"); }), "not a corpus"));
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.set("format_version", std::int64_t{9}); }), "corpus format 9"));
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.remove("offsets"); }), "offsets"));
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.at("offsets").write_rows<std::uint64_t>(3, std::vector<std::uint64_t>{1u << 30}); }),
                    "do not fit together"));
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.at("group_id").write_rows<std::int32_t>(3, std::vector<std::int32_t>{3}); }),
                    "do not fit together"));
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.at("text_id").write_rows<std::int32_t>(3, std::vector<std::int32_t>{2}); }),
                    "do not fit together"));
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.at("genes/median").write_rows<double>(3, std::vector<double>{9.5}); }), "genes"));
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.at("type_id").write_rows<std::int32_t>(3, std::vector<std::int32_t>{9}); }),
                    "does not have the hash"));
  EXPECT_TRUE(holds(refused_after([](Hdf5& f) { f.at("tokens").write_rows<std::uint16_t>(0, std::vector<std::uint16_t>{9}); }),
                    "does not have the hash"));
}

TEST(Corpus, RefusesTokensThatAreNoGenes) {
  const test::TemporaryFolder folder;
  write(folder / "c.h5", {{"a", {2, 3}, 0}}, setup_of(65));
  Hdf5 file = Hdf5::edit(folder / "c.h5");
  file.at("tokens").write_rows<std::uint16_t>(1, std::vector<std::uint16_t>{67});  // <cls>
  file.close();
  const Corpus corpus = Corpus::open(folder / "c.h5");
  TokenIds out(2);
  EXPECT_TRUE(holds(message_of<DataError>([&] { corpus.copy_tokens(0, out); }), "holds id 67"));
}

TEST(Corpus, NoticesThatItsFileWasCutShortMeanwhile) {
  const test::TemporaryFolder folder;
  std::vector<Cell> cells = some_cells(9);
  write(folder / "c.h5", cells, setup_of(65));
  const Corpus corpus = Corpus::open(folder / "c.h5");
  const auto place = Hdf5::open(folder / "c.h5").at("tokens").contiguous_offset();
  TokenIds out(30);
  EXPECT_NO_THROW(corpus.copy_tokens(1, out));
  std::filesystem::resize_file(folder / "c.h5", *place + 2);
  EXPECT_TRUE(holds(message_of<DataError>([&] { corpus.verify(); }), "c.h5: was cut short while it was in use"));
}

TEST(Corpus, RefusesTokensThatWereRepacked) {
  const test::TemporaryFolder folder;
  write(folder / "c.h5", some_cells(9), setup_of(65));
  Hdf5 file = Hdf5::edit(folder / "c.h5");
  const auto tokens = file.at("tokens").read<std::uint16_t>();
  file.remove("tokens");
  file.write<std::uint16_t>("tokens", tokens, {.gzip = 1});
  file.close();
  EXPECT_TRUE(holds(message_of<DataError>([&] { Corpus::open(folder / "c.h5"); }), "tokens: not stored in one piece (repacked?)"));
}

TEST(Corpus, RefusesOtherFiles) {
  const test::TemporaryFolder folder;
  EXPECT_TRUE(holds(message_of<DataError>([&] { Corpus::open(folder / "none.h5"); }), "none.h5"));
  std::ofstream(folder / "text.h5") << "hello";
  EXPECT_TRUE(holds(message_of<DataError>([&] { Corpus::open(folder / "text.h5"); }), "text.h5"));
  write(folder / "c.h5", some_cells(9), setup_of(65));
  std::filesystem::resize_file(folder / "c.h5", std::filesystem::file_size(folder / "c.h5") / 2);
  EXPECT_TRUE(holds(message_of<DataError>([&] { Corpus::open(folder / "c.h5"); }), "c.h5"));
}

TEST(Funnel, ReturnsFromJsonInOrder) {
  const Funnel funnel{10, 7, {{"z", 1}, {"a", 2}}, {{"empty", 3}}};
  const Funnel back = Funnel::parse(funnel.json());
  EXPECT_EQ(back.dropped, funnel.dropped);
  EXPECT_EQ(back.noted, funnel.noted);
  EXPECT_EQ(back.kept, 7u);
}

}  // namespace
}  // namespace lc
