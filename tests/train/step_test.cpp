// One training step: what must not change its numbers (accumulation, recompute, threads), and that it learns.
#include "train/step.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <map>
#include <numeric>

#include "engine/errors.h"
#include "engine/profile.h"
#include "tests/train/small_corpus.h"

namespace lc::test {
namespace {

std::vector<Samples> pieces(std::int64_t cells, std::int64_t micro_batches) {
  std::vector<Samples> all(static_cast<std::size_t>(micro_batches));
  for (std::int64_t c = 0; c < cells; ++c) all[c * micro_batches / cells].push_back(c);
  return all;
}

struct Outcome {
  StepResult result;
  std::vector<float> gradients, weights;
};
Outcome one_step(const StepRule& rule, const std::vector<Samples>& micro, DType storage = DType::f32) {
  const TemporaryFolder folder;
  SmallModel m(write_corpus(folder / "c.h5", {.cells = 24, .groups = 4, .without_text = 3}), storage);
  const auto alone = comm_alone();
  const StepResult r = Step(*m.model, m.data, *alone, rule).run(5, micro, 1e-3f);
  return {r, m.gradients(), m.weights()};
}

TEST(step, accumulation_changes_neither_losses_nor_gradients) {
  for (const auto pass : {StepRule::MaskedPass::own, StepRule::MaskedPass::view_b}) {
    StepRule rule = everything();
    rule.masked_pass = pass;
    const Outcome whole = one_step(rule, pieces(24, 1));
    EXPECT_TRUE(whole.result.mgm && whole.result.cell_cell && whole.result.cell_text && whole.result.matching);
    for (const std::int64_t n : {2, 4}) {
      const Outcome parts = one_step(rule, pieces(24, n));
      EXPECT_NEAR(parts.result.loss, whole.result.loss, 1e-6 * whole.result.loss);
      EXPECT_NEAR(*parts.result.matching, *whole.result.matching, 1e-6);
      EXPECT_LE(relative(parts.gradients, whole.gradients), 1e-4);
    }
  }
}

TEST(step, recompute_gives_equal_bits_with_dropout) {
  for (const DType storage : {DType::f32, DType::bf16}) {
    StepRule rule = everything();
    const Outcome kept = one_step(rule, pieces(24, 1), storage);
    rule.activations = PassOptions::Activations::recompute;
    const Outcome again = one_step(rule, pieces(24, 1), storage);
    EXPECT_EQ(kept.weights, again.weights);
    EXPECT_EQ(kept.result.loss, again.result.loss);
  }
}

TEST(step, two_runs_give_equal_bits_at_one_and_at_two_threads) {
  const int before = omp_get_max_threads();
  for (const int threads : {1, 2}) {
    omp_set_num_threads(threads);
    EXPECT_EQ(one_step(everything(), pieces(24, 2)).weights, one_step(everything(), pieces(24, 2)).weights) << threads;
  }
  omp_set_num_threads(before);
}

TEST(step, a_sum_over_tokens_does_not_depend_on_the_order_of_samples) {
  const Outcome forward = one_step(everything(), pieces(24, 1));
  std::vector<Samples> reversed = pieces(24, 1);
  std::reverse(reversed[0].begin(), reversed[0].end());
  const Outcome backward = one_step(everything(), reversed);
  EXPECT_NEAR(forward.result.loss, backward.result.loss, 1e-5 * forward.result.loss);  // masks and negatives follow the cell, not its place
  EXPECT_LE(relative(backward.gradients, forward.gradients), 1e-4);
}

TEST(step, views_differ_by_their_dropout) {
  StepRule rule = everything();
  const Outcome with = one_step(rule, pieces(24, 1));
  EXPECT_GT(*with.result.cell_cell, 1e-4);  // two equal views of a hopeful model would be told apart from others perfectly only by chance
  const TemporaryFolder folder;
  SmallModel m(write_corpus(folder / "c.h5", {.cells = 24, .groups = 4}));
  const auto alone = comm_alone();
  Step step(*m.model, m.data, *alone, rule);
  const auto a = step.run(1, pieces(24, 1), 0, Update::gradients_only), b = step.run(1, pieces(24, 1), 0, Update::gradients_only),
             c = step.run(2, pieces(24, 1), 0, Update::gradients_only);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_NE(a.loss, c.loss);
}

TEST(step, a_loss_that_is_not_finite_names_step_and_samples_and_updates_nothing) {
  const TemporaryFolder folder;
  SmallModel m(write_corpus(folder / "c.h5", {.cells = 24, .groups = 4}));
  const NamedParameter& p = *m.model->parameters().find("cell_bert.encoder.layer.1.output.dense.weight");
  m.model->parameters().master(p)[7] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> before = m.weights();
  const auto alone = comm_alone();
  try {
    Step(*m.model, m.data, *alone, everything()).run(41, {{3, 9, 17, 20}}, 1e-3f);
    FAIL() << "no error";
  } catch (const NumericalError& e) {
    EXPECT_NE(std::string(e.what()).find("stage 2, step 42"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("3 9 17 20"), std::string::npos) << e.what();
  }
  const std::vector<float> after = m.weights();
  EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);
}

TEST(step, validation_computes_no_gradient) {
  const TemporaryFolder folder;
  SmallModel m(write_corpus(folder / "c.h5", {.cells = 24, .groups = 4}));
  const auto alone = comm_alone();
  Step step(*m.model, m.data, *alone, everything());
  const auto backward_calls = [&](Update update) {
    inspection().profile = true;
    reset_profile();
    const StepResult r = step.run(0, pieces(24, 2), 0, update);
    inspection().profile = false;
    EXPECT_TRUE(r.mgm && r.cell_cell && r.cell_text && r.matching);
    std::map<std::string, double> calls;
    for (const ProfileRow& row : profile_rows()) {
      if (row.direction == Direction::backward) calls[row.name] += row.calls;
    }
    return calls;
  };
  EXPECT_TRUE(backward_calls(Update::gradients_only).contains("infonce"));
  EXPECT_EQ(backward_calls(Update::losses_only), (std::map<std::string, double>{}));
}

TEST(step, one_group_alone_has_nothing_to_tell_apart) {
  const TemporaryFolder folder;
  SmallModel m(write_corpus(folder / "c.h5", {.cells = 24, .groups = 4}));
  const auto alone = comm_alone();
  const StepResult r = Step(*m.model, m.data, *alone, everything()).run(0, {{0, 4, 8, 12}}, 0, Update::gradients_only);
  EXPECT_TRUE(r.one_group_only);
  EXPECT_FALSE(r.cell_text);
  EXPECT_EQ(r.skipped_negatives, 8);
  EXPECT_TRUE(r.mgm && r.cell_cell);
}

TEST(step, stage_one_needs_no_text_tower) {
  const TemporaryFolder folder;
  SmallModel m(write_corpus(folder / "c.h5", {.cells = 24, .groups = 4}));
  StepRule rule = everything();
  rule.stage = 1, rule.cell_text = rule.matching = 0;
  const auto alone = comm_alone();
  const StepResult r = Step(*m.model, m.data, *alone, rule).run(0, pieces(24, 2), 1e-3f);
  EXPECT_TRUE(r.mgm && r.cell_cell);
  EXPECT_FALSE(r.cell_text || r.matching);
}

TEST(step, tiny_overfits_thirty_two_pairs) {
  const TemporaryFolder folder;
  SmallModel m(write_corpus(folder / "c.h5", {.cells = 32, .groups = 32, .genes = 160}));
  StepRule rule = everything();
  rule.mgm = 0, rule.cell_cell = 0;
  const auto alone = comm_alone();
  Step step(*m.model, m.data, *alone, rule);
  StepResult r;
  int n = 0;
  for (; n < 600; ++n) {
    r = step.run(static_cast<std::uint32_t>(n), pieces(32, 1), 1e-3f);
    if (*r.cell_text < 0.05 && *r.matching < 0.05) break;
  }
  EXPECT_LT(*r.cell_text, 0.05) << n;
  EXPECT_LT(*r.matching, 0.05) << n;
}

}  // namespace
}  // namespace lc::test
