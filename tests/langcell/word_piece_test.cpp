// WordPiece against BertTokenizer's ids, and the vocabulary built from texts.
#include "models/langcell/data/word_piece.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "models/langcell/data/word_piece_builder.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;

TEST(WordPiece, EqualsTheSlowBertTokenizer) {
  const auto word_piece = WordPiece::read(test::data("golden/tiny/model/vocab.txt"));
  nlohmann::json golden;
  std::ifstream(test::data("golden/wordpiece.json")) >> golden;
  ASSERT_GE(golden["cases"].size(), 100u);
  for (const auto& entry : golden["cases"]) {
    const auto text = entry["text"].get<std::string>();
    EXPECT_EQ(word_piece.encode(text, 512).ids, entry["ids"].get<std::vector<std::int32_t>>()) << text;
  }
}

WordPiece letters() { return build_word_piece({}, 200); }

TEST(WordPiece, CutsToTheLengthAndKeepsTheEnds) {
  const auto word_piece = letters();
  const auto whole = word_piece.encode("ab c", 512), cut = word_piece.encode("ab c", 4);
  EXPECT_EQ(whole.ids, (std::vector<std::int32_t>{word_piece.id_of("[CLS]"), word_piece.id_of("a"), word_piece.id_of("##b"),
                                                  word_piece.id_of("c"), word_piece.id_of("[SEP]")}));
  EXPECT_EQ(whole.pieces, 5);
  EXPECT_EQ(cut.ids, (std::vector<std::int32_t>{word_piece.id_of("[CLS]"), word_piece.id_of("a"), word_piece.id_of("##b"),
                                                word_piece.id_of("[SEP]")}));
  EXPECT_EQ(cut.pieces, 5);
}

TEST(WordPiece, SurvivesBrokenUtf8) { EXPECT_EQ(letters().encode("a\xff\xc3 b\xe2\x82", 512).ids, letters().encode("a b", 512).ids); }

TEST(WordPiece, RefusesVocabulariesThatCannotBe) {
  const test::TemporaryFolder folder;
  EXPECT_TRUE(holds(message_of<ModelError>([&] { WordPiece::read(folder / "vocab.txt"); }), "vocab.txt: no such file"));
  std::ofstream(folder / "vocab.txt") << "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n";
  EXPECT_TRUE(holds(message_of<ModelError>([&] { WordPiece::read(folder / "vocab.txt"); }), "5 pieces without [MASK]"));
  EXPECT_NO_THROW(letters().require_fits(letters().size(), "m"));
  EXPECT_NO_THROW(letters().require_fits(letters().size() + 2, "m"));
  EXPECT_TRUE(holds(message_of<ModelError>([&] { letters().require_fits(letters().size() - 1, "m"); }), "table of"));
  EXPECT_TRUE(holds(message_of<ModelError>([&] { letters().require_fits(30522, "m"); }), "cut off"));
}

TEST(WordPiece, WritesTheLinesThatItRead) {
  const test::TemporaryFolder folder;
  letters().write(folder / "vocab.txt");
  EXPECT_EQ(WordPiece::read(folder / "vocab.txt").text(), letters().text());
}

TEST(WordPiece, WarnsAboveThirtyPerCentUnknown) {
  const std::vector<std::string> good = {"a b c"}, bad = {"a b c", "a b c β 細"};
  EXPECT_EQ(unknown_warning(letters(), good), "");
  EXPECT_TRUE(holds(unknown_warning(letters(), bad), "1 of 2 texts"));
  EXPECT_TRUE(holds(unknown_warning(letters(), bad), "2 of 5 pieces"));
}

TEST(WordPieceBuilder, HasEveryLetterDigitAndMarkTwice) {
  const auto word_piece = letters();
  EXPECT_EQ(word_piece.size(), 5 + 2 * 68);
  for (char c = 33; c < 127; ++c) {
    if (c >= 'A' && c <= 'Z') continue;
    EXPECT_GE(word_piece.id_of(std::string(1, c)), 0) << c;
    EXPECT_GE(word_piece.id_of(std::string("##") + c), 0) << c;
  }
  EXPECT_EQ(word_piece.encode("CD4+ [x] Zq9~", 512).unknown, 0);
}

TEST(WordPieceBuilder, KnowsItsOwnTextsWordByWord) {
  const std::vector<std::string> texts = {"T cell, γδ; T cell", "naïve B cell"};
  const auto word_piece = build_word_piece(texts);
  const auto encoded = word_piece.encode(texts[0], 512);
  EXPECT_EQ(encoded.ids.size(), 2 + 7u);
  EXPECT_EQ(encoded.unknown, 0);
  EXPECT_GE(word_piece.id_of("naive"), 0);
  EXPECT_LT(word_piece.id_of("cell"), word_piece.id_of("naive"));  // by frequency
}

TEST(WordPieceBuilder, MergesWhatWordsShare) {
  const std::vector<std::string> texts = {"lymphocyte monocyte leukocyte"};
  const auto word_piece = build_word_piece(texts);
  EXPECT_GE(word_piece.id_of("##ocyte"), 0);
  const auto unseen = word_piece.encode("hepatocyte", 512);
  EXPECT_EQ(unseen.unknown, 0);
  EXPECT_EQ(word_piece.piece(unseen.ids[unseen.ids.size() - 2]), "##ocyte");
}

TEST(WordPieceBuilder, KeepsItsLimitAndItsOrder) {
  const std::vector<std::string> texts = {"alpha beta beta gamma gamma delta"}, turned = {"delta gamma beta", "gamma beta alpha"};
  for (const std::int32_t limit : {141, 143, 150, 8192}) {
    EXPECT_LE(build_word_piece(texts, limit).size(), limit);
    EXPECT_EQ(build_word_piece(texts, limit).text(), build_word_piece(turned, limit).text());
  }
  EXPECT_EQ(build_word_piece(texts, 143).piece(142), "gamma");
  EXPECT_TRUE(holds(message_of<DataError>([&] { build_word_piece(texts, 140); }), "no room"));
}

TEST(WordPieceBuilder, LeavesOutWordsThatBertCallsUnknown) {
  const std::vector<std::string> texts = {std::string(100, 'x') + " " + std::string(101, 'y')};
  const auto word_piece = build_word_piece(texts);
  EXPECT_EQ(word_piece.encode(texts[0], 512).unknown, 1);
  EXPECT_EQ(word_piece.encode(texts[0], 512).ids.size(), 4u);
}

}  // namespace
}  // namespace lc
