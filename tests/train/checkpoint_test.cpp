#include "train/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using test::holds;
using test::TemporaryFolder;

struct Trained {  // a tiny model with odd weights and moments
  ModelFacts facts;
  std::unique_ptr<LangCell> model;
  explicit Trained(std::uint64_t seed) {
    std::vector<Gene> genes;
    for (int i = 0; i < 30; ++i) genes.push_back({"ENSG" + std::to_string(i), "", 1.0 + i});
    std::vector<std::string> pieces(WordPiece::specials.begin(), WordPiece::specials.end());
    facts = {GeneVocabulary(std::move(genes)), WordPiece(std::move(pieces)), 0.05, {}};
    model = std::make_unique<LangCell>(preset("tiny", facts.genes.size(), facts.word_piece.size()), LangCell::Parts{}, DType::bf16);
    Parameters& parameters = model->parameters();
    parameters.allocate_training();
    parameters.initialize(seed);
    for (const NamedParameter& p : parameters.named()) {
      for (std::int64_t i = 0; i < p.shape.count(); ++i) {
        parameters.moment1(p)[i] = parameters.master(p)[i] * 1e-30f + 1e-39f * static_cast<float>(i);  // denormals, too
        parameters.moment2(p)[i] = static_cast<float>(seed) + parameters.master(p)[i] * parameters.master(p)[i];
      }
    }
  }
  fs::path write(const fs::path& folder, const TrainerState& state, std::int64_t keep = 3, const LangCell::Parts& parts = {}) const {
    ParameterSnapshot numbers;
    numbers.take(model->parameters());
    return write_checkpoint(folder, {*model, facts, state, "[train]\nseed = 3\n", parts}, numbers, keep);
  }
};

template <class Get>
bool same_bytes(const LangCell& a, const LangCell& b, const std::string& prefix, const Get& get) {
  return std::ranges::all_of(a.parameters().named(), [&](const NamedParameter& p) {
    if (!p.name.starts_with(prefix)) return true;
    const auto bytes = [&](const LangCell& m) {
      return std::as_bytes(std::span<const float>(get(m.parameters(), p), static_cast<std::size_t>(p.shape.count())));
    };
    return std::ranges::equal(bytes(a), bytes(b));
  });
}
const auto master = [](const Parameters& all, const NamedParameter& p) { return all.master(p); };
const auto moment1 = [](const Parameters& all, const NamedParameter& p) { return all.moment1(p); };
const auto moment2 = [](const Parameters& all, const NamedParameter& p) { return all.moment2(p); };

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Checkpoint, BringsWeightsMomentsAndPositionBackByteForByte) {
  const TemporaryFolder folder;
  const Trained run(1);
  Trained other(2);
  const TrainerState state{2, 500, 0xffffffffffffffffull, 4};
  const fs::path path = run.write(folder / "checkpoints", state);
  EXPECT_EQ(path.filename(), "stage2-step-00000500");
  EXPECT_FALSE(same_bytes(*run.model, *other.model, "", moment2));
  restore(path, *other.model);
  EXPECT_TRUE(same_bytes(*run.model, *other.model, "", master));
  EXPECT_TRUE(same_bytes(*run.model, *other.model, "", moment1));
  EXPECT_TRUE(same_bytes(*run.model, *other.model, "", moment2));
  EXPECT_EQ(read_trainer_state(path), state);
  EXPECT_EQ(read_checkpoint_config(path), "[train]\nseed = 3\n");
  const Tensor& table = *other.model->gene_embeddings();
  const NamedParameter* p = other.model->parameters().find("cell_bert.embeddings.word_embeddings.weight");
  EXPECT_EQ(table.to_host<bf16>()[0].bits, from_float<bf16>(other.model->parameters().master(*p)[0]).bits) << "the storage copy follows";
}

TEST(Checkpoint, IsAModelFolder) {
  const TemporaryFolder folder;
  const Trained run(1);
  const LoadedModel loaded = load_model(run.write(folder.path(), {1, 7, 0, 1}), {.verify = Verify::hashes});
  EXPECT_TRUE(same_bytes(*run.model, *loaded.model, "", master));
}

TEST(Checkpoint, OfStageOneLeavesTheTextTowerOutAndAlone) {
  const TemporaryFolder folder;
  const Trained run(1), untouched(2);
  Trained other(2);
  const fs::path path = run.write(folder.path(), {1, 7, 0, 1}, 3, {.text = LangCell::Part::absent});
  EXPECT_FALSE(fs::exists(path / "text_bert"));
  restore(path, *other.model);
  for (const char* trained : {"cell_bert.", "cell_proj.", "mgm_head."}) {
    EXPECT_TRUE(same_bytes(*run.model, *other.model, trained, master) && same_bytes(*run.model, *other.model, trained, moment2)) << trained;
  }
  for (const char* kept : {"text_bert.", "text_proj.", "ctm_head."}) {
    EXPECT_TRUE(same_bytes(*untouched.model, *other.model, kept, master) && same_bytes(*untouched.model, *other.model, kept, moment1))
        << kept;
  }
}

TEST(Checkpoint, TheNewestAreKeptByStageAndStep) {
  const TemporaryFolder folder;
  const Trained run(1);
  fs::create_directory(folder / "mine");
  for (const std::int64_t step : {900, 1000}) run.write(folder.path(), {1, step, 0, 1}, 2);
  run.write(folder.path(), {2, 5, 0, 1}, 2);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"mine", "stage1-step-00001000", "stage2-step-00000005"}));
  EXPECT_EQ(newest_checkpoint(folder.path()).path, folder / "stage2-step-00000005");
  run.write(folder.path(), {2, 5, 1, 1}, 1);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"mine", "stage2-step-00000005"})) << "one of the same step is replaced";
  EXPECT_EQ(read_trainer_state(folder / "stage2-step-00000005").seed, 1u);
}

TEST(Checkpoint, DamagedOnesAreSkippedWithAWarning) {
  const TemporaryFolder folder;
  const Trained run(1);
  for (const std::int64_t step : {1, 2, 3, 4, 5}) run.write(folder.path(), {1, step, 0, 1}, 9);
  fs::remove(folder / checkpoint_name(1, 5) / "MANIFEST.json");
  fs::resize_file(folder / checkpoint_name(1, 4) / "trainer/moments.safetensors", 4096);
  {
    std::fstream file(folder / checkpoint_name(1, 3) / "cell_bert/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-5, std::ios::end);
    file.put('\x55');
  }
  fs::create_directory(folder / "stage1-step-00000009.partial-1");
  const FoundCheckpoint found = newest_checkpoint(folder.path());
  EXPECT_EQ(found.path, folder / checkpoint_name(1, 2));
  ASSERT_EQ(found.warnings.size(), 3u);
  EXPECT_TRUE(holds(found.warnings[0], "stage1-step-00000005 is skipped: "));
  EXPECT_TRUE(holds(found.warnings[1], "moments.safetensors: wanted "));
  EXPECT_TRUE(holds(found.warnings[2], "its SHA-256"));
  fs::rename(folder / checkpoint_name(1, 2), folder / checkpoint_name(1, 8));
  EXPECT_TRUE(holds(newest_checkpoint(folder.path()).warnings.at(0), "its state is of stage1-step-00000002"));
  EXPECT_FALSE(newest_checkpoint(folder / "nothing").path.has_value());
}

TEST(Checkpoint, OfAnotherModelIsRefused) {
  const TemporaryFolder folder;
  const Trained run(1);
  const fs::path path = run.write(folder.path(), {1, 1, 0, 1});
  Trained other(2);
  {
    const SafetensorsReader moments(path / "trainer/moments.safetensors");
    const StoredTensor first = moments.tensors().front();
    const auto values = moments.values<float>(first.name);
    write_safetensors(path / "trainer/moments.safetensors", {{first.name, first.type, first.shape, std::as_bytes(std::span(values))}});
  }
  const std::string message = test::message_of<ModelError>([&] { restore(path, *other.model); });
  EXPECT_TRUE(holds(message, "moments.safetensors: tensors that do not fit"));
  fs::remove(path / "trainer/state.json");
  EXPECT_THROW(read_trainer_state(path), ModelError);
}

TEST(Checkpoint, AFullDiskLeavesTheOldOnesAndNothingElse) {
  const TemporaryFolder folder;
  const Trained run(1);
  run.write(folder.path(), {1, 1, 0, 1});
  std::ofstream(folder / "file") << "x";
  EXPECT_THROW(run.write(folder / "file", {1, 2, 0, 1}), ResourceError);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"file", "stage1-step-00000001"}));
}

TEST(Checkpoint, LeftoversOfDeadProcessesAreRemoved) {
  const TemporaryFolder folder;
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  const std::string gone = std::to_string(dead);
  fs::create_directories(folder / ("stage1-step-00000001.partial-" + gone) / "trainer");
  fs::create_directory(folder / ("model.old-" + gone));
  std::ofstream(folder / ("report.html.partial-" + gone)) << "half";
  fs::create_directory(folder / "stage1-step-00000001.partial-1");  // process 1 lives
  fs::create_directory(folder / ("my.partial-" + gone + "x"));
  fs::create_directory(folder / checkpoint_name(1, 1));
  remove_leftovers(folder.path());
  EXPECT_EQ(names_in(folder.path()),
            (std::vector<std::string>{"model", "my.partial-" + gone + "x", "stage1-step-00000001", "stage1-step-00000001.partial-1"}))
      << "a model that was moved aside comes back";
}

}  // namespace
}  // namespace lc
