// A model goes to disk and comes back as it was; each way a folder can be damaged has its line.
#include "models/langcell/model_folder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "models/langcell/pretrained/bundle.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using test::holds;
using test::message_of;
using test::TemporaryFolder;

ModelFacts small_facts() {
  std::vector<Gene> genes;
  for (int i = 0; i < 38; ++i) genes.push_back({"ENSG" + std::to_string(100 + i), "G" + std::to_string(i), 1.0 + i / 3.0});
  std::vector<std::string> pieces(WordPiece::specials.begin(), WordPiece::specials.end());
  for (char c = 'a'; c <= 'z'; ++c) pieces.push_back(std::string(1, c));
  return {GeneVocabulary(std::move(genes)), WordPiece(std::move(pieces)), 0.05, {"trained from nothing on 12 cells"}};
}

LangCellConfig tiny(const ModelFacts& facts) {
  LangCellConfig config = preset("tiny", facts.genes.size(), facts.word_piece.size() + 2);  // a table may have more rows than pieces
  config.max_cell_tokens = 129, config.max_text_tokens = 33;
  return config;
}

std::unique_ptr<LangCell> tiny_model(const ModelFacts& facts, const LangCell::Parts& parts = {}) {
  auto model = std::make_unique<LangCell>(tiny(facts), parts, DType::f32);
  model->parameters().initialize(7);
  return model;
}

std::span<const float> weights(const LangCell& model, const NamedParameter& p) {
  return {model.parameters().master(p), static_cast<std::size_t>(p.shape.count())};
}

void expect_same_bits(const LangCell& a, const LangCell& b) {
  ASSERT_EQ(a.parameters().named().size(), b.parameters().named().size());
  for (const NamedParameter& p : a.parameters().named()) {
    const NamedParameter* q = b.parameters().find(p.name);
    ASSERT_NE(q, nullptr) << p.name;
    const auto left = std::as_bytes(weights(a, p)), right = std::as_bytes(weights(b, *q));
    EXPECT_TRUE(std::equal(left.begin(), left.end(), right.begin(), right.end())) << p.name;
  }
}

nlohmann::json json_of(const fs::path& path) { return nlohmann::json::parse(read_file(path)); }

TEST(ModelFolder, WhatWasSavedIsLoadedAgainToTheBit) {
  const TemporaryFolder folder;
  const ModelFacts facts = small_facts();
  const auto model = tiny_model(facts);
  save_model(folder / "m", *model, facts);
  const LoadedModel loaded = load_model(folder / "m", {.verify = Verify::hashes});
  expect_same_bits(*model, *loaded.model);
  EXPECT_TRUE(loaded.model->has_text() && loaded.model->has_mgm_head());
  EXPECT_EQ(loaded.config().preset, "tiny");
  EXPECT_EQ(loaded.config().projection, 32);
  EXPECT_EQ(loaded.config().initialisation, Initialisation::fan_in);
  EXPECT_EQ(loaded.config().max_cell_tokens, 129);
  EXPECT_EQ(loaded.config().max_text_tokens, 33);
  EXPECT_EQ(loaded.config().text.types, 0);
  EXPECT_EQ(loaded.config().cell.types, 2);
  EXPECT_EQ(loaded.config().text.attention_dropout, 0.1f);
  EXPECT_EQ(loaded.config().cell.eps, 1e-12f);
  EXPECT_EQ(loaded.facts.genes.hash(), facts.genes.hash());
  EXPECT_EQ(loaded.facts.word_piece.text(), facts.word_piece.text());
  EXPECT_EQ(loaded.facts.history, facts.history);
  save_model(folder / "again", *loaded.model, loaded.facts);
  EXPECT_EQ(read_file(folder / "again/MANIFEST.json"), read_file(folder / "m/MANIFEST.json"));
}

TEST(ModelFolder, TensorsHaveThePublishedNamesAndNoPaddingRows) {
  const TemporaryFolder folder;
  const ModelFacts facts = small_facts();
  save_model(folder / "m", *tiny_model(facts), facts);
  const SafetensorsReader cell(folder / "m/cell_bert/model.safetensors");
  EXPECT_EQ(cell.metadata(), (StoredMetadata{{"format", "pt"}}));
  EXPECT_EQ(cell.at("embeddings.word_embeddings.weight").shape, (std::vector<std::int64_t>{41, 64}));
  EXPECT_EQ(cell.at("encoder.layer.1.attention.self.key.weight").shape, (std::vector<std::int64_t>{64, 64}));
  const SafetensorsReader text(folder / "m/text_bert/model.safetensors");
  EXPECT_NE(text.find("encoder.layer.0.crossattention.self.value.bias"), nullptr);
  EXPECT_NE(SafetensorsReader(folder / "m/cell_proj.safetensors").find("bias"), nullptr);
  EXPECT_NE(SafetensorsReader(folder / "m/mgm_head.safetensors").find("transform.dense.weight"), nullptr);
  const auto config = json_of(folder / "m/cell_bert/config.json");
  EXPECT_EQ(config["layer_norm_eps"], 1e-12);
  EXPECT_EQ(config["hidden_dropout_prob"], 0.02);
  EXPECT_EQ(config["hidden_act"], "relu");
  EXPECT_EQ(config["vocab_size"], 41);
  EXPECT_EQ(json_of(folder / "m/text_bert/config.json")["encoder_width"], 64);
}

TEST(ModelFolder, ATowerThatWasNotTrainedIsLeftOut) {
  const TemporaryFolder folder;
  const ModelFacts facts = small_facts();
  const auto model = tiny_model(facts);
  fs::create_directory(folder / "m");
  write_model(folder / "m", *model, facts, {.text = LangCell::Part::absent});
  write_manifest(folder / "m");
  EXPECT_FALSE(fs::exists(folder / "m/text_bert"));
  EXPECT_FALSE(fs::exists(folder / "m/ctm_head.safetensors"));
  const LoadedModel loaded = load_model(folder / "m");
  EXPECT_FALSE(loaded.model->has_text());
  EXPECT_TRUE(loaded.model->has_mgm_head());

  const auto other = tiny_model(facts);
  other->parameters().initialize(8);
  EXPECT_THROW(read_weights(folder / "m", *other), ModelError);
  read_weights(folder / "m", *other, Missing::keep);
  const NamedParameter* cell = other->parameters().find("cell_proj.weight");
  const NamedParameter* text = other->parameters().find("text_proj.weight");
  EXPECT_TRUE(std::ranges::equal(weights(*other, *cell), weights(*model, *cell)));
  EXPECT_FALSE(std::ranges::equal(weights(*other, *text), weights(*model, *text)));
}

TEST(ModelFolder, TheHashFollowsTheWeightsAndNotTheCard) {
  const TemporaryFolder folder;
  const ModelFacts facts = small_facts();
  const auto model = tiny_model(facts);
  save_model(folder / "m", *model, facts);
  const std::string hash = content_hash(folder / "m");
  fs::remove(folder / "m/MANIFEST.json");
  EXPECT_EQ(content_hash(folder / "m"), hash);
  std::ofstream(folder / "m/MODEL_CARD.md") << "another card\n";
  EXPECT_EQ(content_hash(folder / "m"), hash);
  *model->parameters().master(model->parameters().named().back()) += 1e-3f;
  save_model(folder / "n", *model, facts);
  EXPECT_NE(content_hash(folder / "n"), hash);
}

TEST(ModelFolder, LowPrecisionStorageIsTheRoundedMaster) {
  const TemporaryFolder folder;
  const ModelFacts facts = small_facts();
  save_model(folder / "m", *tiny_model(facts), facts);
  const LoadedModel loaded = load_model(folder / "m", {.storage = DType::bf16});
  const Tensor& table = *loaded.model->gene_embeddings();
  const NamedParameter* p = loaded.model->parameters().find("cell_bert.embeddings.word_embeddings.weight");
  EXPECT_EQ(table.to_host<bf16>()[65].bits, from_float<bf16>(loaded.model->parameters().master(*p)[65]).bits);
}

TEST(ModelFolder, AnImportedFolderLoadsWithItsOwnSizes) {
  const fs::path bundle = test::data("golden/tiny/model");
  const ImportedModel imported =
      import_bundle({bundle, GeneVocabulary::read(test::data("data/geneformer_v1_genes.tsv")), bundle / "vocab.txt"});
  const TemporaryFolder folder;
  save_model(folder / "model", *imported.loaded.model, imported.loaded.facts);
  const LoadedModel golden = load_model(folder / "model");
  EXPECT_EQ(golden.config().text.width, 96);
  EXPECT_EQ(golden.config().text.heads, 3);
  EXPECT_EQ(golden.config().text.types, 0);
  EXPECT_EQ(golden.config().cell.vocabulary, 25427);
  EXPECT_EQ(golden.config().projection, 32);
  EXPECT_FALSE(golden.model->has_mgm_head());
}

// ---- damage

void edit_json(const fs::path& path, const std::function<void(nlohmann::json&)>& edit) {
  nlohmann::json json = json_of(path);
  edit(json);
  write_file(path, json.dump());
}

// The tensors of a file once more, after `edit` had its way with them.
void edit_tensors(const fs::path& path, const std::function<void(std::vector<TensorToStore>&, std::vector<std::vector<float>>&)>& edit) {
  std::vector<std::vector<float>> values;
  std::vector<TensorToStore> tensors;
  {
    const SafetensorsReader reader(path);
    for (const StoredTensor& t : reader.tensors())
      values.push_back(reader.values<float>(t.name)), tensors.push_back({t.name, t.type, t.shape, {}});
  }
  edit(tensors, values);
  for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].data = std::as_bytes(std::span<const float>(values[i]));
  write_safetensors(path, tensors);
}

struct Damage {
  const char* name;
  std::function<void(const fs::path&)> act;
  const char* said;
  enum class Manifest { kept, removed } manifest = Manifest::removed;
};

const std::vector<Damage>& damages() {
  static const std::vector<Damage> all = {
      {"NoFolder", [](const fs::path& m) { fs::remove_all(m); }, "no such model folder"},
      {"NoConfig", [](const fs::path& m) { fs::remove(m / "config.json"); }, "no config.json"},
      {"ConfigIsNotJson", [](const fs::path& m) { write_file(m / "config.json", "{\"preset\""); }, "config.json: wanted a JSON object"},
      {"ConfigWithoutPreset", [](const fs::path& m) { edit_json(m / "config.json", [](auto& j) { j.erase("preset"); }); },
       "preset: wanted a value, got nothing"},
      {"ConfigOfALaterVersion", [](const fs::path& m) { edit_json(m / "config.json", [](auto& j) { j["version"] = 2; }); },
       "version: wanted at most 1"},
      {"ConfigOfOtherSizes", [](const fs::path& m) { edit_json(m / "config.json", [](auto& j) { j["cell"]["width"] = 128; }); },
       "width: wanted 64"},
      {"UnknownActivation",
       [](const fs::path& m) { edit_json(m / "cell_bert/config.json", [](auto& j) { j["hidden_act"] = "gelu_new"; }); },
       "hidden_act: wanted relu or gelu, got \"gelu_new\""},
      {"SizeIsAText", [](const fs::path& m) { edit_json(m / "cell_bert/config.json", [](auto& j) { j["hidden_size"] = "64"; }); },
       "hidden_size: wanted a whole number"},
      {"VocabularyThatIsNotThere",
       [](const fs::path& m) {
         edit_json(m / "cell_bert/config.json", [](auto& j) { j["vocab_size"] = 200000000; });
         edit_json(m / "config.json", [](auto& j) { j.erase("cell"); });
       },
       "wanted shape (200000000, 64)"},
      {"OneLayerMoreThanThereIs",
       [](const fs::path& m) {
         edit_json(m / "cell_bert/config.json", [](auto& j) { j["num_hidden_layers"] = 3; });
         edit_json(m / "config.json", [](auto& j) { j.erase("cell"); });
       },
       "missing 16 (encoder.layer.2."},
      {"TensorMissing",
       [](const fs::path& m) {
         edit_tensors(m / "cell_proj.safetensors", [](auto& t, auto& v) { t.erase(t.begin()), v.erase(v.begin()); });
       },
       "missing 1 (bias)"},
      {"TensorTooMany",
       [](const fs::path& m) {
         edit_tensors(m / "ctm_head.safetensors", [](auto& t, auto& v) {
           t.push_back({"extra", StoredType::f32, {1}, {}}), v.push_back({0});
         });
       },
       "unexpected 1 (extra)"},
      {"TensorOfAnotherShape",
       [](const fs::path& m) { edit_tensors(m / "text_proj.safetensors", [](auto& t, auto&) {
                                 t[1].shape = {64, 32};
                               }); },
       "weight: wanted (32, 64), got (64, 32)"},
      {"WeightNotFinite",
       [](const fs::path& m) {
         edit_tensors(m / "mgm_head.safetensors", [](auto&, auto& v) { v[0][2] = std::numeric_limits<float>::quiet_NaN(); });
       },
       "bias: element 2 is nan"},
      {"WeightsMissing", [](const fs::path& m) { fs::remove(m / "text_bert/model.safetensors"); }, "text_bert/model.safetensors"},
      {"HeadMissing", [](const fs::path& m) { fs::remove(m / "ctm_head.safetensors"); }, "text_bert is there without ctm_head.safetensors"},
      {"TowerMissing", [](const fs::path& m) { fs::remove_all(m / "text_bert"); }, "text_proj.safetensors is there without text_bert"},
      {"GenesMissing", [](const fs::path& m) { fs::remove(m / "genes.tsv"); }, "genes.tsv"},
      {"GenesOfAnotherModel",
       [](const fs::path& m) {
         GeneVocabulary({{"ENSG1", "A", 1}}).write(m / "genes.tsv");
       },
       "wanted 41 tokens with <cls>"},
      {"PiecesMissing", [](const fs::path& m) { fs::remove(m / "text_bert/vocab.txt"); }, "vocab.txt"},
      {"MorePiecesThanRows", [](const fs::path& m) { std::ofstream(m / "text_bert/vocab.txt", std::ios::app) << "x1\nx2\nx3\n"; },
       "vocab.txt"},
      {"FileCutShort", [](const fs::path& m) { fs::resize_file(m / "cell_bert/model.safetensors", 1000); }, "wanted ",
       Damage::Manifest::kept},
      {"FileMissing", [](const fs::path& m) { fs::remove(m / "mgm_head.safetensors"); }, "mgm_head.safetensors: wanted ",
       Damage::Manifest::kept},
      {"ManifestCutShort", [](const fs::path& m) { fs::resize_file(m / "MANIFEST.json", 50); }, "MANIFEST.json: wanted a JSON object",
       Damage::Manifest::kept},
      {"ManifestPointsOutside",
       [](const fs::path& m) { edit_json(m / "MANIFEST.json", [](auto& j) {
                                 j["files"]["../x"] = {{"size", 1}, {"sha256", ""}};
                               }); },
       "points outside", Damage::Manifest::kept},
      {"ByteFlipped", [](const fs::path& m) { edit_tensors(m / "mgm_head.safetensors", [](auto&, auto& v) { v[0][2] += 1; }); },
       "mgm_head.safetensors: its SHA-256 is not the one", Damage::Manifest::kept},
  };
  return all;
}

class DamagedFolder : public testing::TestWithParam<Damage> {};

TEST_P(DamagedFolder, IsRefusedInOneLine) {
  const TemporaryFolder folder;
  const ModelFacts facts = small_facts();
  save_model(folder / "m", *tiny_model(facts), facts);
  ASSERT_NO_THROW((void)load_model(folder / "m"));
  if (GetParam().manifest == Damage::Manifest::removed) fs::remove(folder / "m/MANIFEST.json");
  GetParam().act(folder / "m");
  const std::string message = message_of<ModelError>([&] { (void)load_model(folder / "m", {.verify = Verify::hashes}); });
  EXPECT_TRUE(holds(message, GetParam().said));
  EXPECT_TRUE(holds(message, folder.path().string()));
}

INSTANTIATE_TEST_SUITE_P(ModelFolder, DamagedFolder, testing::ValuesIn(damages()), [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace lc
