// What a run starts from: foreign towers in place, which excludes what, and that training moves on from their weights.
#include "train/start_model.h"

#include <gtest/gtest.h>

#include <cstring>

#include "engine/errors.h"
#include "models/langcell/folder_config.h"
#include "models/langcell/pretrained/torch_writer.h"
#include "tests/support/expect_error.h"
#include "tests/train/small_corpus.h"
#include "train/step.h"

namespace lc::test {
namespace {

namespace fs = std::filesystem;

// One tower of a model as a folder of others: its tensors without our prefix, some rows fewer in the first table.
void write_foreign_tower(const fs::path& folder, const LangCell& model, const std::string& part, TowerConfig config,
                         std::int64_t rows_fewer) {
  fs::create_directories(folder);
  std::vector<TensorToPickle> tensors;
  for (const NamedParameter& p : model.parameters().named()) {
    if (!p.name.starts_with(part + ".") || p.name.find("crossattention") != std::string::npos) continue;
    std::vector<std::int64_t> shape = stored_shape(p.shape);
    if (p.name.ends_with("word_embeddings.weight")) shape[0] -= rows_fewer;
    std::size_t count = 1;
    for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    tensors.push_back({p.name.substr(part.size() + 1), shape, {model.parameters().master(p), count}});
  }
  config.vocabulary -= rows_fewer, config.cross_width = 0;
  write_bert_config(folder / "config.json", config);
  write_torch(folder / "pytorch_model.bin", tensors);
}

struct Foreign {  // a corpus, and a Geneformer and a BERT that fit it
  TemporaryFolder folder;
  fs::path corpus = write_corpus(folder / "c.h5", {.cells = 24, .groups = 4});
  SmallModel source{corpus};
  Foreign() {
    write_foreign_tower(folder / "geneformer", *source.model, "cell_bert", source.model->config().cell, 1);
    write_foreign_tower(folder / "bert", *source.model, "text_bert", source.model->config().text, 0);
    source.word_piece.write(folder / "bert/vocab.txt");
  }
  Options options() const {
    Options o = parse_options("[model]\npreset = \"tiny\"\n[data]\nmax_cell_tokens = 41\nmax_text_tokens = 64\n", {});
    o.data.corpus = {corpus.string()};
    return o;
  }
  StartModel start(const Options& o) {
    Dataset data({corpus});
    return start_model(
        o, data, {}, [](const std::string&) {}, [](const std::string&) {});
  }
};

const float* weights(const LangCell& m, const std::string& name) { return m.parameters().master(*m.parameters().find(name)); }

TEST(StartModel, ForeignTowersBringTheirWeightsAndTheRestIsNew) {
  Foreign f;
  Options o = f.options();
  o.model.cell_model = (f.folder / "geneformer").string(), o.model.text_model = (f.folder / "bert").string();
  const StartModel s = f.start(o);
  EXPECT_TRUE(s.cell_loaded && s.text_loaded);
  EXPECT_EQ(s.facts.word_piece.size(), f.source.word_piece.size());
  for (const char* name : {"cell_bert.encoder.layer.1.output.dense.weight", "text_bert.encoder.layer.0.intermediate.dense.weight"}) {
    EXPECT_EQ(std::memcmp(weights(*s.model, name), weights(*f.source.model, name), 64 * sizeof(float)), 0) << name;
  }
  const std::string words = "cell_bert.embeddings.word_embeddings.weight",
                    cross = "text_bert.encoder.layer.0.crossattention.self.query.weight";
  const std::int64_t cls = s.facts.genes.cls() * 64;
  EXPECT_EQ(std::memcmp(weights(*s.model, words), weights(*f.source.model, words), static_cast<std::size_t>(cls) * sizeof(float)), 0);
  EXPECT_NE(std::memcmp(weights(*s.model, words) + cls, weights(*f.source.model, words) + cls, 64 * sizeof(float)), 0);
  EXPECT_NE(weights(*s.model, cross)[0], 0.0f);
}

TEST(StartModel, ARunGoesOnFromForeignTowers) {
  Foreign f;
  Options o = f.options();
  o.model.text_model = (f.folder / "bert").string();
  Dataset data({f.corpus});
  const auto quiet = [](const std::string&) {};
  const StartModel s = start_model(o, data, {}, quiet, quiet);
  StepRule rule;
  rule.stage = 2, rule.cell_text = 1, rule.matching = 1, rule.max_cell_tokens = 41;
  const auto alone = comm_alone();
  Step step(*s.model, data, *alone, rule);
  Samples all(24);
  for (std::int64_t c = 0; c < 24; ++c) all[static_cast<std::size_t>(c)] = c;
  const double first = step.run(0, {all}, 1e-3f).loss;
  double last = first;
  for (std::uint32_t n = 1; n < 12; ++n) last = step.run(n, {all}, 1e-3f).loss;
  EXPECT_LT(last, 0.9 * first);
}

TEST(StartModel, SaysWhichKeysExcludeEachOther) {
  Foreign f;
  Options o = f.options();
  o.model.text_model = (f.folder / "bert").string(), o.stage2.steps = 0;
  EXPECT_TRUE(holds(message_of<UsageError>([&] { f.start(o); }), "model.text_model"));
  o = f.options(), o.model.cell_model = (f.folder / "bert").string();
  EXPECT_TRUE(holds(message_of<ModelError>([&] { f.start(o); }), "tokenize with the genes"));
  o = f.options(), o.model.text_model = (f.folder / "nowhere").string();
  EXPECT_TRUE(holds(message_of<ModelError>([&] { f.start(o); }), "no weights in it"));

  save_model(f.folder / "model", *f.source.model, {f.source.data.vocabulary(), f.source.word_piece, 0.05, {}});
  o = f.options(), o.model.init = (f.folder / "model").string(), o.model.cell_model = (f.folder / "geneformer").string();
  EXPECT_TRUE(holds(message_of<UsageError>([&] { f.start(o); }), "model.cell_model"));
}

TEST(StartModel, AShortVocabularyBesideATextModelIsRefused) {
  Foreign f;
  std::string pieces = f.source.word_piece.text();
  pieces.resize(pieces.find_last_of('\n', pieces.size() - 2) + 1);
  write_file(f.folder / "bert/vocab.txt", pieces);
  Options o = f.options();
  o.model.text_model = (f.folder / "bert").string();
  EXPECT_TRUE(holds(message_of<ModelError>([&] { f.start(o); }), "embedding table"));
}

TEST(StartModel, TextsThatAreCutAreNamed) {
  Foreign f;
  Options o = f.options();
  o.data.max_text_tokens = 8;
  std::string warning;
  Dataset data({f.corpus});
  start_model(
      o, data, {}, [](const std::string&) {}, [&](const std::string& line) { warning += line; });
  EXPECT_TRUE(holds(warning, "4 labels are longer")) << warning;
}

}  // namespace
}  // namespace lc::test
