// Checkpoints that are written while training goes on.
#include "train/checkpoint_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "engine/errors.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;

struct Training {
  ModelFacts facts;
  std::unique_ptr<LangCell> model;
  Training() {
    std::vector<Gene> genes;
    for (int i = 0; i < 3000; ++i) genes.push_back({"ENSG" + std::to_string(i), "", 1.0 + i});
    facts.genes = GeneVocabulary(std::move(genes));
    model = std::make_unique<LangCell>(preset("tiny", facts.genes.size(), 10), LangCell::Parts{.text = LangCell::Part::absent}, DType::f32);
    model->parameters().allocate_training();
    set(1);
  }
  void set(float value) {  // weights, and twice it the moments
    Parameters& all = model->parameters();
    for (const NamedParameter& p : all.named()) {
      for (std::int64_t i = 0; i < p.shape.count(); ++i)
        all.master(p)[i] = value, all.moment1(p)[i] = 2 * value, all.moment2(p)[i] = 2 * value;
    }
  }
  bool holds(float value) const {
    const Parameters& all = model->parameters();
    return std::ranges::all_of(all.named(), [&](const NamedParameter& p) {
      const auto is = [&](const float* at, float v) { return std::all_of(at, at + p.shape.count(), [&](float x) { return x == v; }); };
      return is(all.master(p), value) && is(all.moment1(p), 2 * value) && is(all.moment2(p), 2 * value);
    });
  }
  CheckpointContents at(std::int64_t step) const { return {*model, facts, {1, step, 0, 1}, "", {.text = LangCell::Part::absent}}; }
};

TEST(CheckpointWriter, WritesTheNumbersOfTheMomentWhileTheyChange) {
  const TemporaryFolder folder;
  Training run, other;
  CheckpointWriter writer(folder.path(), 9);
  for (int step = 1; step <= 3; ++step) {
    run.set(static_cast<float>(step));
    writer.begin(run.at(step));
    run.set(-1);  // the next step does not wait
  }
  writer.wait();
  for (int step = 1; step <= 3; ++step) {
    restore(folder / checkpoint_name(1, step), *other.model);
    EXPECT_TRUE(other.holds(static_cast<float>(step))) << step;
  }
}

TEST(CheckpointWriter, SaysWhatWentWrongOnceAndGoesOn) {
  const TemporaryFolder folder;
  const Training run;
  std::ofstream(folder / "taken") << "a file";
  CheckpointWriter writer(folder / "taken", 3);
  writer.begin(run.at(1));
  EXPECT_THROW(writer.wait(), ResourceError);
  EXPECT_NO_THROW(writer.wait());
  fs::remove(folder / "taken");
  writer.begin(run.at(2));
  writer.wait();
  writer.check();
  EXPECT_EQ(newest_checkpoint(folder / "taken").path, folder / "taken" / checkpoint_name(1, 2));
}

TEST(CheckpointWriter, TheNextOneBringsTheFailureOfTheOneBefore) {
  const TemporaryFolder folder;
  const Training run;
  std::ofstream(folder / "taken") << "a file";
  CheckpointWriter writer(folder / "taken", 3);
  writer.begin(run.at(1));
  EXPECT_THROW(writer.begin(run.at(2)), ResourceError);
}

TEST(CheckpointWriter, CompletesWhatWasBegunBeforeItGoes) {
  const TemporaryFolder folder;
  const Training run;
  CheckpointWriter(folder.path(), 3).begin(run.at(7));
  EXPECT_EQ(newest_checkpoint(folder.path()).path, folder / checkpoint_name(1, 7));
}

}  // namespace
}  // namespace lc
