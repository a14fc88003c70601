// T.json: the three forms of an entry and what is refused.
#include "models/langcell/data/texts.h"

#include <gtest/gtest.h>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;

std::string refused(std::string_view json) {
  return message_of<DataError>([&] { Texts::parse(json, "T.json"); });
}

TEST(Texts, KeepsOrderAndTheThreeForms) {
  const Texts texts = Texts::parse(
      R"({"z": "last letter", "B": ["one", "two"], "NK": {"text": "killer", "ontology_id": "CL:0000623"}, "a": {"text": ["x", "y"]}})",
      "T.json");
  ASSERT_EQ(texts.labels.size(), 4u);
  EXPECT_EQ(texts.labels[0].label, "z");
  EXPECT_EQ(texts.labels[1].texts, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(texts.labels[2].ontology_id, "CL:0000623");
  EXPECT_EQ(texts.labels[3].texts.size(), 2u);
  EXPECT_EQ(texts.index_of("NK"), 2);
  EXPECT_EQ(texts.index_of("nk"), -1);
  EXPECT_EQ(texts.all(), (std::vector<std::string>{"last letter", "one", "two", "killer", "x", "y"}));
}

TEST(Texts, ReadsTheFileOfThePbmcs) {
  const Texts texts = Texts::read(test::data("data/pbmc3k_texts.json"));
  EXPECT_EQ(texts.labels.size(), 9u);
  EXPECT_EQ(texts.labels.front().label, "B");
  EXPECT_EQ(texts.labels.back().label, "Platelet");
}

TEST(Texts, RefusesWhatWouldBeLostInSilence) {
  EXPECT_TRUE(holds(refused(R"({"B": "x", "T": "y", "B": "z"})"), "'B' occurs twice"));
  EXPECT_TRUE(holds(refused(R"({"B": {"text": "x", "text": "y"}})"), "'text' occurs twice"));
  EXPECT_TRUE(holds(refused(R"({"B": "x", "T": ["y", "x"]})"), "label 'T': the same text as label 'B'"));
  EXPECT_TRUE(holds(refused(R"({"B": ""})"), "label 'B': the text is empty"));
  EXPECT_TRUE(holds(refused(R"({"B": ["x", " \n"]})"), "the text is empty"));
  EXPECT_TRUE(holds(refused(R"({"B": []})"), "list of texts is empty"));
  EXPECT_TRUE(holds(refused(R"({"": "x"})"), "empty string"));
}

TEST(Texts, RefusesAnotherShape) {
  EXPECT_TRUE(holds(refused("{}"), "no labels"));
  EXPECT_TRUE(holds(refused(""), "T.json:1: not valid JSON"));
  EXPECT_TRUE(holds(refused("[\"x\"]"), "found array"));
  EXPECT_TRUE(holds(refused("{\n\"B\": \"x\",\n\"T\": }"), "T.json:3"));
  EXPECT_TRUE(holds(refused(R"({"B": 3})"), "found number"));
  EXPECT_TRUE(holds(refused(R"({"B": null})"), "found null"));
  EXPECT_TRUE(holds(refused(R"({"B": ["x", 3]})"), "found number"));
  EXPECT_TRUE(holds(refused(R"({"B": {"text": "x", "id": "y"}})"), "unknown key 'id'"));
  EXPECT_TRUE(holds(refused(R"({"B": {"ontology_id": "CL:1"}})"), "no \"text\""));
  EXPECT_TRUE(holds(refused("{\"B\": \"\xff\"}"), "not valid JSON"));
  EXPECT_TRUE(holds(message_of<DataError>([] { Texts::read("/nowhere/T.json"); }), "/nowhere/T.json"));
}

TEST(Texts, EqualKeysInDifferentObjectsAreFine) {
  EXPECT_EQ(Texts::parse(R"({"text": {"text": "x"}, "B": {"text": "y"}})", "T.json").labels.size(), 2u);
}

TEST(Texts, ReadsCellOntologyNumbers) {
  EXPECT_EQ(cell_ontology_number("CL:0000236"), 236);
  for (const char* other : {"", "CL:", "CL:x", "UBERON:0000236", "CL:1 ", "CL:-1"}) EXPECT_EQ(cell_ontology_number(other), -1) << other;
}

}  // namespace
}  // namespace lc
