// Foreign weights: what torch.save, safetensors and Geneformer write is read whole, and everything else is refused by name.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <numeric>

#include "engine/errors.h"
#include "engine/safetensors.h"
#include "models/langcell/folder_config.h"
#include "models/langcell/pretrained/bundle.h"
#include "models/langcell/pretrained/export.h"
#include "models/langcell/pretrained/geneformer_dictionaries.h"
#include "models/langcell/pretrained/pickle.h"
#include "models/langcell/pretrained/torch_writer.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc::test {
namespace {

namespace fs = std::filesystem;

std::vector<float> ascending(std::size_t n, float first = 0) {
  std::vector<float> v(n);
  std::iota(v.begin(), v.end(), first);
  return v;
}

std::string bytes_of_file(const fs::path& path) { return read_file(path); }
void put_file(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// A small torch file: two matrices and a vector.
struct Small {
  TemporaryFolder folder;
  std::vector<float> a = ascending(6), b = ascending(3, 10);
  fs::path path = folder / "weights.bin";
  Small() {
    const std::vector<TensorToPickle> tensors{{"layer.weight", {2, 3}, a}, {"layer.bias", {3}, b}};
    write_torch(path, tensors);
  }
  std::string refusal_with(const std::function<void(std::string&)>& change) const {
    std::string bytes = bytes_of_file(path);
    change(bytes);
    const fs::path bad = folder / "bad.bin";
    put_file(bad, bytes);
    return message_of<ModelError>([&] { TensorFiles::of_file(bad); });
  }
};

void replace(std::string& in, const std::string& what, const std::string& with, std::size_t from = 0) {
  const std::size_t at = in.find(what, from);
  ASSERT_NE(at, std::string::npos) << what;
  ASSERT_EQ(what.size(), with.size());
  in.replace(at, what.size(), with);
}

TEST(TorchFile, WhatWasWrittenIsReadAgain) {
  const Small s;
  const TensorFiles files = TensorFiles::of_file(s.path);
  ASSERT_EQ(files.tensors().size(), 2u);
  EXPECT_EQ(files.tensors()[0].name, "layer.bias");
  EXPECT_EQ(files.tensors()[1].shape, (std::vector<std::int64_t>{2, 3}));
  std::vector<float> weight(6), tail(2);
  files.read(1, weight), files.read(1, 4, tail);
  EXPECT_EQ(weight, s.a);
  EXPECT_EQ(tail, (std::vector<float>{4, 5}));
}

TEST(TorchFile, AFileThatIsCutOffIsRefusedWhereverItIsCut) {
  const Small s;
  const std::string whole = bytes_of_file(s.path);
  for (std::size_t keep = 0; keep < whole.size(); keep += 7) {
    put_file(s.folder / "cut.bin", whole.substr(0, keep));
    EXPECT_THROW(TensorFiles::of_file(s.folder / "cut.bin"), ModelError) << keep;
  }
}

TEST(TorchFile, AnotherGlobalIsNamedAndNothingIsExecuted) {
  const Small s;
  EXPECT_TRUE(
      holds(s.refusal_with([](std::string& b) { replace(b, "collections\nOrderedDict", "posix.\n.system.......ic"); }), "posix...system"));
}

TEST(TorchFile, CompressedMembersAreRefused) {
  const Small s;
  const std::string line = s.refusal_with([](std::string& b) {
    const std::size_t central = b.find("PK\x01\x02");
    b[central + 10] = 8;  // deflate
  });
  EXPECT_TRUE(holds(line, "compressed"));
}

TEST(TorchFile, ADeclaredSizeThatTheFileDoesNotHaveIsRefused) {
  const Small s;
  const std::string line = s.refusal_with([](std::string& b) {
    const std::size_t central = b.find("PK\x01\x02");
    for (const std::size_t at : {central + 20, central + 24}) b[at + 3] = '\x7f';  // 2 GB of data.pkl
  });
  EXPECT_TRUE(holds(line, "cut off"));
}

TEST(TorchFile, TwoMembersOfOneNameAreRefused) {
  const Small s;
  const std::string line = s.refusal_with([](std::string& b) {
    const std::size_t directory = b.find("PK\x01\x02");
    replace(b, "weights/data/1", "weights/data/0", directory);
  });
  EXPECT_TRUE(holds(line, "two members are called"));
}

TEST(TorchFile, AStorageShorterThanItsTensorIsRefused) {
  const Small s;
  const std::string line = s.refusal_with([](std::string& b) {
    const std::string two_three = std::string("(J\x02\0\0\0J\x03\0\0\0t", 12);
    replace(b, two_three, std::string("(J\x02\0\0\0J\x04\0\0\0t", 12));
  });
  EXPECT_TRUE(holds(line, "layer.weight")) << line;
  EXPECT_TRUE(holds(line, "too short")) << line;
}

TEST(TorchFile, TransposedViewsAreRefused) {
  const Small s;
  const std::string line = s.refusal_with(
      [](std::string& b) { replace(b, std::string("(J\x03\0\0\0J\x01\0\0\0t", 12), std::string("(J\x01\0\0\0J\x02\0\0\0t", 12)); });
  EXPECT_TRUE(holds(line, "contiguous")) << line;
}

TEST(TorchFile, BigEndianStoragesAreRefused) {
  const Small s;
  EXPECT_TRUE(holds(s.refusal_with([](std::string& b) { replace(b, "little", "big   "); }), "big-endian"));
}

TEST(TorchFile, TheFormBeforePyTorch16IsNamed) {
  const TemporaryFolder folder;
  put_file(folder / "old.bin", std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15) + "rest");
  EXPECT_TRUE(holds(message_of<ModelError>([&] { TensorFiles::of_file(folder / "old.bin"); }), "before PyTorch 1.6"));
}

TEST(TorchFile, AWeightThatIsNoNumberIsNamedWithItsPlace) {
  const TemporaryFolder folder;
  std::vector<float> a = ascending(6);
  a[4] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<TensorToPickle> tensors{{"w", {6}, a}};
  write_torch(folder / "w.bin", tensors);
  const TensorFiles files = TensorFiles::of_file(folder / "w.bin");
  std::vector<float> out(6);
  const std::string line = message_of<ModelError>([&] { files.read(0, out); });
  EXPECT_TRUE(holds(line, ":w: element 4 is nan")) << line;
}

// ---- the pickle machine

constexpr std::array<std::string_view, 1> kOrdered{"collections OrderedDict"};
std::string pickle_refusal(const std::string& bytes) {
  return message_of<ModelError>([&] { Pickle(bytes, kOrdered, "test"); });
}

TEST(PickleMachine, KnowsThePlainValuesOfTheProtocol) {
  const std::string bytes = std::string("\x80\x04") + "(K\x05M\x01\x02J\xff\xff\xff\xff" + std::string("\x8a\x02\xff\x7f", 4) + "G" +
                            std::string("\x3f\xf8\0\0\0\0\0\0", 8) + "\x8c\x02hiN\x88\x89t.";
  const Pickle p(bytes, kOrdered, "test");
  ASSERT_TRUE(p.top().is(Pickle::Kind::tuple));
  const auto& items = p.top().items;
  ASSERT_EQ(items.size(), 9u);
  EXPECT_EQ(items[0]->integer, 5);
  EXPECT_EQ(items[1]->integer, 0x0201);
  EXPECT_EQ(items[2]->integer, -1);
  EXPECT_EQ(items[3]->integer, 0x7fff);
  EXPECT_EQ(items[4]->real, 1.5);
  EXPECT_EQ(items[5]->text, "hi");
  EXPECT_TRUE(items[6]->is(Pickle::Kind::none));
  EXPECT_EQ(items[7]->integer, 1);
  EXPECT_EQ(items[8]->integer, 0);
}

TEST(PickleMachine, RefusesWhatNoStateDictNeeds) {
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02\x81."), "opcode 0x81"));           // NEWOBJ
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02ios\nsystem\n."), "opcode 0x69"));  // INST
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02"
                                   "cos\nsystem\n."),
                    "os.system"));
  EXPECT_TRUE(holds(pickle_refusal(std::string("\x80\x02h\0.", 5)), "never remembered"));
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02"
                                   "0."),
                    "opcode 0x30"));  // POP
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02)R."), "takes more than there is"));
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02t."), "no mark"));
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02X\xff\xff\xff\x7fhi."), "cut off"));
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02))."), "other than one value"));
  EXPECT_TRUE(holds(pickle_refusal(std::string("\x80\x02)r\xff\xff\xff\xff.", 9)), "impossible place"));
}

TEST(PickleMachine, ADeepNestAndALoopNeitherOverflowNorLeak) {
  std::string deep = "\x80\x02)";
  for (int i = 0; i < 1'000'000; ++i) deep += '\x85';
  EXPECT_NO_THROW(Pickle(deep + ".", kOrdered, "test"));
  EXPECT_NO_THROW(Pickle(std::string("\x80\x02]q\0h\0a.", 9), kOrdered, "test"));  // a list that holds itself
  EXPECT_TRUE(holds(pickle_refusal("\x80\x02" + std::string(2'100'000, 'N') + "."), "more than"));
}

// ---- Geneformer's dictionaries

TEST(GeneformerDictionaries, AreTheGenesAndMediansThatTheTableOfGenesHas) {
  const GeneVocabulary read = read_geneformer_dictionaries(data("data/token_dictionary.pkl"), data("data/gene_median_dictionary.pkl"));
  const GeneVocabulary table = GeneVocabulary::read(data("data/geneformer_v1_genes.tsv"));
  EXPECT_EQ(read.size(), table.size());
  EXPECT_EQ(read.hash(), table.hash());
}

TEST(GeneformerDictionaries, ExchangedFilesAreRefused) {
  const fs::path tokens = data("data/token_dictionary.pkl"), medians = data("data/gene_median_dictionary.pkl");
  EXPECT_TRUE(holds(message_of<ModelError>([&] { read_geneformer_dictionaries(medians, tokens); }), "<pad>"));
}

// ---- bundles

fs::path golden_model() { return data("golden/tiny/model"); }
ImportedModel golden_import() {
  return import_bundle({golden_model(), GeneVocabulary::read(data("data/geneformer_v1_genes.tsv")), golden_model() / "vocab.txt"});
}

void expect_same_weights(const LangCell& a, const LangCell& b) {
  ASSERT_EQ(a.parameters().named().size(), b.parameters().named().size());
  for (const NamedParameter& p : a.parameters().named()) {
    const NamedParameter* q = b.parameters().find(p.name);
    ASSERT_NE(q, nullptr) << p.name;
    ASSERT_EQ(p.shape, q->shape) << p.name;
    const std::size_t bytes = static_cast<std::size_t>(p.shape.count()) * sizeof(float);
    EXPECT_EQ(std::memcmp(a.parameters().master(p), b.parameters().master(*q), bytes), 0) << p.name;
  }
}

TEST(Bundle, EveryTensorIsLoadedOrIgnoredForAReason) {
  const ImportedModel m = golden_import();
  ASSERT_EQ(m.accounts.size(), 5u);
  std::int64_t loaded = 0;
  for (const TensorAccount& a : m.accounts) {
    loaded += a.loaded;
    EXPECT_TRUE(a.fresh.empty());
    for (const IgnoredTensor& t : a.ignored) EXPECT_FALSE(t.reason.empty()) << t.name;
  }
  EXPECT_EQ(loaded, std::ssize(m.loaded.model->parameters().named()));
}

TEST(Bundle, ImportThenExportThenImportGivesEqualBits) {
  const TemporaryFolder folder;
  const ImportedModel first = golden_import();
  export_bundle(folder / "bundle", first.loaded, Existing::refuse);
  const ImportedModel again =
      import_bundle({folder / "bundle", GeneVocabulary::read(folder / "bundle/genes.tsv"), folder / "bundle/text_bert/vocab.txt"});
  expect_same_weights(*first.loaded.model, *again.loaded.model);
  EXPECT_EQ(again.loaded.facts.genes.hash(), first.loaded.facts.genes.hash());
}

// A copy of the golden bundle with one thing wrong.
struct Altered {
  TemporaryFolder folder;
  fs::path path = folder / "bundle";
  Altered() {
    fs::copy(golden_model(), path, fs::copy_options::recursive);
    for (const auto& e : fs::recursive_directory_iterator(path)) fs::permissions(e, fs::perms::owner_all, fs::perm_options::add);
    fs::permissions(path, fs::perms::owner_all, fs::perm_options::add);
  }
  std::string refusal() const {
    return message_of<ModelError>([&] {
      import_bundle({path, GeneVocabulary::read(data("data/geneformer_v1_genes.tsv")), path / "vocab.txt"});
    });
  }
  void config(const std::string& tower, const std::string& from, const std::string& to) const {
    std::string text = bytes_of_file(path / tower / "config.json");
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    put_file(path / tower / "config.json", text.replace(at, from.size(), to));
  }
};

TEST(Bundle, AConfigThatContradictsTheTensorsIsRefused) {
  for (const auto& [from, to] : {std::pair{"\"hidden_size\": 64", "\"hidden_size\": 128"},
                                 {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"},
                                 {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"},
                                 {"\"vocab_size\": 25427", "\"vocab_size\": 25426"},
                                 {"\"intermediate_size\": 128", "\"intermediate_size\": 256"}}) {
    const Altered bundle;
    bundle.config("cell_bert", from, to);
    EXPECT_TRUE(holds(bundle.refusal(), "config.json")) << to;
  }
  const Altered bundle;
  bundle.config("text_bert", "\"encoder_width\": 64", "\"encoder_width\": 65");
  EXPECT_TRUE(holds(bundle.refusal(), "encoder_width"));
}

TEST(Bundle, AVocabularyOneRowTooShortIsRefused) {
  const Altered bundle;
  std::string text = bytes_of_file(bundle.path / "vocab.txt");
  text.resize(text.find_last_of('\n', text.size() - 2) + 1);
  put_file(bundle.path / "vocab.txt", text);
  EXPECT_TRUE(holds(bundle.refusal(), "30521 pieces"));
}

TEST(Bundle, AMissingHeadAndAWrongShapeAreNamed) {
  {
    const Altered bundle;
    fs::remove(bundle.path / "ctm_head.bin");
    EXPECT_TRUE(holds(bundle.refusal(), "ctm_head.bin"));
  }
  {
    const Altered bundle;
    fs::copy_file(bundle.path / "cell_proj.bin", bundle.path / "ctm_head.bin", fs::copy_options::overwrite_existing);
    EXPECT_TRUE(holds(bundle.refusal(), "ctm_head.weight: wanted (2, 96), got (32, 64)"));
  }
}

TEST(Bundle, MissingUnknownAndWrongTypesAreListed) {
  const Altered bundle;
  const std::vector<float> w = ascending(2 * 96);
  const std::vector<double> bias{0, 0};
  fs::remove(bundle.path / "ctm_head.bin");
  write_safetensors(bundle.path / "ctm_head.safetensors", {{"weight", StoredType::f32, {2, 96}, std::as_bytes(std::span(w))},
                                                           {"bias", StoredType::f64, {2}, std::as_bytes(std::span(bias))},
                                                           {"scale", StoredType::f64, {2}, std::as_bytes(std::span(bias))}});
  const std::string line = bundle.refusal();
  EXPECT_TRUE(holds(line, "unexpected 1 (ctm_head.scale)")) << line;
  EXPECT_TRUE(holds(line, "ctm_head.bias: F64")) << line;
}

// A Geneformer is a cell tower without <cls>, here cut from our own.
TEST(Geneformer, GetsARowForClsAndItsLanguageHeadBecomesTheMaskedGeneHead) {
  const TemporaryFolder folder;
  std::vector<Gene> genes;
  for (int i = 0; i < 30; ++i) genes.push_back({"ENSG" + std::to_string(10000000000 + i), "", 1.0});
  const GeneVocabulary vocabulary(genes);
  LangCellConfig config = preset("tiny", vocabulary.size(), 1);
  config.text = {};
  LangCell source(config, {LangCell::Part::absent, LangCell::Part::required}, DType::f32);
  source.parameters().initialize(3);
  std::vector<TensorToPickle> tensors;
  for (const NamedParameter& p : source.parameters().named()) {
    std::vector<std::int64_t> shape = stored_shape(p.shape);
    if (p.name == "cell_bert.embeddings.word_embeddings.weight" || p.name == "mgm_head.bias") --shape[0];
    std::string name = p.name.starts_with("cell_bert.")  ? "bert." + p.name.substr(10)
                       : p.name.starts_with("mgm_head.") ? "cls.predictions." + p.name.substr(9)
                                                         : "";
    if (name.empty()) continue;
    const auto count = static_cast<std::size_t>(std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>()));
    tensors.push_back({name, shape, {source.parameters().master(p), count}});
  }
  TowerConfig written = config.cell;
  --written.vocabulary;
  write_bert_config(folder / "config.json", written);
  write_torch(folder / "pytorch_model.bin", tensors);

  const ImportedModel m = import_geneformer(folder.path(), vocabulary, 5);
  const Parameters& from = source.parameters();
  const Parameters& to = m.loaded.model->parameters();
  const auto row = [](const Parameters& p, std::int64_t r) {
    return p.master(*p.find("cell_bert.embeddings.word_embeddings.weight")) + r * 64;
  };
  for (std::int64_t r = 0; r + 1 < vocabulary.size(); ++r) EXPECT_EQ(std::memcmp(row(from, r), row(to, r), 64 * sizeof(float)), 0) << r;
  EXPECT_NE(std::memcmp(row(from, vocabulary.cls()), row(to, vocabulary.cls()), 64 * sizeof(float)), 0);
  const std::string dense = "mgm_head.transform.dense.weight";
  EXPECT_EQ(std::memcmp(from.master(*from.find(dense)), to.master(*to.find(dense)), 64 * 64 * sizeof(float)), 0);

  const GeneVocabulary shorter(std::vector<Gene>(genes.begin(), genes.end() - 1));
  EXPECT_TRUE(holds(message_of<ModelError>([&] { import_geneformer(folder.path(), shorter, 5); }), "gene vocabulary"));
}

// A BERT for texts, sharded, with token types and a pooler, as Hugging Face writes them.
TEST(TextBert, TokenTypesGoIntoThePositionsAndCrossAttentionIsNew) {
  const TemporaryFolder folder;
  LangCellConfig config = preset("tiny", 40, 50);
  LangCell source(config, {}, DType::f32);
  source.parameters().initialize(3);
  const std::vector<float> types = ascending(2 * 64, 1), pooler(64 * 64, 0.5f);
  std::vector<TensorToStore> shards[2];
  std::string map;
  const auto add = [&](int shard, const std::string& name, std::vector<std::int64_t> shape, std::span<const float> values) {
    shards[shard].push_back({name, StoredType::f32, std::move(shape), std::as_bytes(values)});
    map += (map.empty() ? "" : ",") + ("\"" + name + "\":\"model-" + std::to_string(shard) + ".safetensors\"");
  };
  int turn = 0;
  for (const NamedParameter& p : source.parameters().named()) {
    if (!p.name.starts_with("text_bert.") || p.name.find("crossattention") != std::string::npos) continue;
    add(turn++ % 2, p.name.substr(10), stored_shape(p.shape), {source.parameters().master(p), static_cast<std::size_t>(p.shape.count())});
  }
  add(0, "embeddings.token_type_embeddings.weight", {2, 64}, types);
  add(1, "pooler.dense.weight", {64, 64}, pooler);
  for (int i : {0, 1}) write_safetensors(folder / ("model-" + std::to_string(i) + ".safetensors"), shards[i]);
  put_file(folder / "model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  TowerConfig written = config.text;
  written.types = 2, written.cross_width = 0;
  write_bert_config(folder / "config.json", written);

  const TensorFiles files = TensorFiles::of_folder(folder.path());
  config.text = read_tower(folder.path(), files, TowerSource::text_bert);
  EXPECT_EQ(config.text.types, 0);
  config.text.cross_width = config.cell.width;
  LangCell model(config, {}, DType::f32);
  model.parameters().initialize(9);
  const TensorAccount account = fill_tower(files, TowerSource::text_bert, "text_bert", model);
  EXPECT_EQ(account.ignored.size(), 2u);
  EXPECT_EQ(account.fresh.size(), 2u * 10u);
  const std::string positions = "text_bert.embeddings.position_embeddings.weight";
  const float *before = source.parameters().master(*source.parameters().find(positions)),
              *after = model.parameters().master(*model.parameters().find(positions));
  for (std::int64_t i = 0; i < 512 * 64; ++i) ASSERT_EQ(after[i], before[i] + types[static_cast<std::size_t>(i % 64)]) << i;

  fs::remove(folder / "model-1.safetensors");
  EXPECT_TRUE(holds(message_of<ModelError>([&] { TensorFiles::of_folder(folder.path()); }), "model-1.safetensors"));
}

}  // namespace
}  // namespace lc::test
