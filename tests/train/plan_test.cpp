#include "train/plan.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/comm.h"
#include "engine/errors.h"
#include "engine/memory.h"
#include "tests/support/expect_error.h"
#include "tests/train/small_corpus.h"
#include "train/order.h"
#include "train/pretrain.h"
#include "train/rates.h"
#include "train/stage.h"
#include "train/start_model.h"

namespace lc {
namespace {

using test::TemporaryFolder;

class PlanTest : public testing::Test {
 protected:
  Options options(const std::vector<std::string>& keys) const {
    std::vector<std::string> set = {"data.corpus=" + nlohmann::json(corpus_).dump(),
                                    "model.preset=\"tiny\"",
                                    "train.precision=\"fp32\"",
                                    "train.batch_size=16",
                                    "stage1.steps=1",
                                    "stage2.steps=1",
                                    "train.log_every=1",
                                    "validate.every=0",
                                    "checkpoint.every=0",
                                    "train.tensorboard=false"};
    set.insert(set.end(), keys.begin(), keys.end());
    return parse_options("", set);
  }
  RunPlan plan(const Options& o, const PlanFor& what = {}) const {
    Dataset data({corpus_});
    return plan_run(o, data, what);
  }
  // `peak_bytes` of a stage's first step, as a run logs it.
  std::map<int, double> measured_peaks(const Options& o) const {
    const TemporaryFolder run;
    PretrainSetup setup;
    setup.options = o, setup.run = run / "run", setup.progress = Progress::Show::nothing;
    const auto alone = comm_alone();
    pretrain(setup, *alone);
    std::ifstream log(run / "run/train.jsonl");
    std::map<int, double> peaks;
    for (std::string line; std::getline(log, line);) {
      const auto json = nlohmann::json::parse(line);
      double& peak = peaks[json["stage"].get<int>()];
      peak = std::max(peak, json["peak_bytes"].get<double>());
    }
    return peaks;
  }
  const TemporaryFolder folder_;
  const std::string corpus_ =
      test::write_corpus(folder_ / "corpus.h5", {.cells = 96, .groups = 5, .without_text = 3, .genes = 400, .longest = 350}).string();
};

TEST_F(PlanTest, MemoryIsWithinATenthOfWhatARunThenTakes) {
  const std::vector<std::vector<std::string>> configurations = {
      {},
      {"train.recompute=true"},
      {"train.accumulate=4"},
      {"train.accumulate=2", "train.recompute=true", "data.max_cell_tokens=129"},
      {"train.precision=\"bf16\"", "data.max_cell_tokens=65", "train.batch_size=33"},
      {"model.preset=\"small\"", "train.batch_size=8", "stage1.share_pass=true", "data.max_cell_tokens=129"},
      {"stage2.objectives.matching=0", "stage1.objectives.mgm=0"},
  };
  for (const auto& keys : configurations) {
    const Options o = options(keys);
    const std::string name = testing::PrintToString(keys);
    const auto measured = measured_peaks(o);
    const RunPlan planned = plan(o);
    ASSERT_EQ(planned.stages.size(), 2u);
    for (const StagePlan& s : planned.stages) {
      const double peak = measured.at(s.stage);
      EXPECT_NEAR(static_cast<double>(s.peak_bytes) / peak, 1, 0.1) << name << ", stage " << s.stage;
      EXPECT_GE(s.held_bytes, s.peak_bytes) << name;
    }
  }
}

TEST_F(PlanTest, RecomputingTakesLessMemoryAndMoreOperations) {
  const StagePlan keep = plan(options({})).stages[1], again = plan(options({"train.recompute=true"})).stages[1];
  EXPECT_LT(again.peak_bytes, keep.peak_bytes);
  EXPECT_GT(again.flops(), 1.2 * keep.flops());
}

// The same step on a real queue: every operator is called as often, with as many operations and bytes.
TEST_F(PlanTest, AWalkedStepDoesTheWorkOfARealOne) {
  const Options o = options({"stage1.steps=0", "stage2.steps=1"});
  Dataset data({corpus_});
  const auto quiet = [](const std::string&) {};
  const StartModel start = start_model(o, data, {}, quiet, quiet);
  freeze_for_stage(o, 2, {}, start.model->parameters());
  const auto length = [&](std::int64_t c) { return data.length(c, 2048); };
  SampleOrder order(CellSet(data.cells(), [](std::int64_t) { return true; }), {0, 2, 16, length});
  const auto alone = comm_alone();
  const Inspection before = inspection();
  reset_profile();
  inspection().profile = true;
  Step(*start.model, data, *alone, step_rule(o, 2, 2048)).run(0, micro_batches(order.batch(0), length, {}), 0);
  inspection() = before;
  const std::vector<ProfileRow> real = profile_rows();
  reset_profile();
  const std::vector<ProfileRow> walked = plan(o).stages.at(0).work;
  ASSERT_EQ(walked.size(), real.size());
  for (std::size_t i = 0; i < real.size(); ++i) {
    EXPECT_EQ(walked[i].name, real[i].name);
    EXPECT_EQ(walked[i].calls, real[i].calls) << real[i].name;
    EXPECT_NEAR(walked[i].flops, real[i].flops, 0.02 * real[i].flops) << real[i].name << ": other negatives were drawn";
    EXPECT_NEAR(walked[i].bytes, real[i].bytes, 0.02 * real[i].bytes) << real[i].name;
  }
}

TEST_F(PlanTest, RanksShareABatchAndSendTheirGradients) {
  const StagePlan one = plan(options({})).stages[1], two = plan(options({}), {.ranks = 2}).stages[1];
  EXPECT_EQ(one.gradient_bytes + one.gather_bytes, 0);
  EXPECT_EQ(two.samples, 8);
  EXPECT_NEAR(two.tokens / one.tokens, 0.5, 0.1);
  EXPECT_LT(two.peak_bytes, one.peak_bytes);
  const auto parameters = static_cast<double>(one.trained + one.frozen);
  EXPECT_GE(two.gradient_bytes, 4 * parameters) << "half of them there, half of the sums back";
  EXPECT_LT(two.gradient_bytes, 4.2 * parameters + 4096 * 64);
  EXPECT_EQ(two.gather_bytes, 8 * (3 * 32 * 4 + 8 + 16));
  const StagePlan first = plan(options({}), {.ranks = 2}).stages[0];
  EXPECT_GE(first.gradient_bytes, 4 * static_cast<double>(first.trained));
  EXPECT_LT(first.gradient_bytes, 0.9 * two.gradient_bytes) << "the text tower is frozen";
}

TEST_F(PlanTest, EpochsCountByTheCellsOfTheCorpusThatIsPlannedFor) {
  const Options o = options({"stage1.epochs=2.0", "stage2.steps=0"});
  EXPECT_EQ(plan(o).stages.at(0).steps, 12);
  EXPECT_EQ(plan(o, {.cells = 1.6e6}).stages.at(0).steps, 200000);
}

TEST_F(PlanTest, AGpuIsPlannedForWhereThereIsNone) {
  const StagePlan s = plan(options({"train.precision=\"bf16\""}), {.device = Device::cuda}).stages[0];
  const StageTime slow = time_of(s, gpu("a100", 1)), fast = time_of(s, gpu("h200", 1));
  EXPECT_GT(s.peak_bytes, 0u);
  EXPECT_GT(fast.compute_s, 0);
  EXPECT_GE(slow.compute_s, fast.compute_s);
  EXPECT_EQ(fast.gradients_s, 0);
  EXPECT_TRUE(test::holds(test::message_of<UsageError>([] { gpu("v100", 1); }), "h200, h100, a100"));
  EXPECT_LT(gpu("h200", 16).link_bytes_per_s, gpu("h200", 8).link_bytes_per_s) << "beyond a node";
}

TEST_F(PlanTest, EveryOperatorOfAStepHasARateOfTheGpu) {
  const Machine machine = gpu("h200", 1);
  for (const StagePlan& s : plan(options({"train.recompute=true"}), {.device = Device::cuda}).stages) {
    for (const ProfileRow& row : s.work) EXPECT_TRUE(machine.stage[s.stage - 1].of.contains({row.name, row.direction})) << row.name;
  }
}

TEST(Rate, AddsOperationsToBytesAndIsNeverLessThanItsCalls) {
  const ProfileRow work{"matmul", Direction::forward, 3, 0, 4e9, 2e12};
  EXPECT_DOUBLE_EQ((Rate{1e12, 2e9, 0}).seconds(work), 4);
  EXPECT_DOUBLE_EQ((Rate{1e12, 0, 1}).seconds(work), 3);
  EXPECT_DOUBLE_EQ(Rate{}.seconds(work), 0);
}

}  // namespace
}  // namespace lc
