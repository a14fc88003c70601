// Training and annotating on CUDA beside the CPU: the same steps, within what two orders of summation differ by. On the shim and on
// devices.
#include "train/step.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/errors.h"
#include "kernels/cuda/device.h"
#include "models/langcell/annotate.h"
#include "models/langcell/model_folder.h"
#include "tests/train/small_corpus.h"
#include "train/checkpoint.h"

namespace lc::test {
namespace {

const Queue kCuda{Device::cuda};

class CudaStep : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = cuda::why_not(kCuda); !reason.empty()) GTEST_SKIP() << reason;
    write_corpus(corpus_, {.cells = 12, .groups = 4, .without_text = 2});
  }
  TemporaryFolder folder_;
  const std::filesystem::path corpus_ = folder_ / "c.h5";
};

Trained train(SmallModel& m, const StepRule& rule, const std::vector<Samples>& micro, int steps) {
  const auto alone = comm_alone();
  Step step(*m.model, m.data, *alone, rule);
  Trained t;
  for (int i = 0; i < steps; ++i) {
    t.losses.push_back(step.run(static_cast<std::uint32_t>(i), micro, 1e-3f).loss);
    if (i == 0) t.first_gradients = m.gradients();
  }
  t.weights = m.weights();
  return t;
}

std::vector<Samples> pieces(int n) {
  std::vector<Samples> all(static_cast<std::size_t>(n));
  for (std::int64_t c = 0; c < 12; ++c) all[static_cast<std::size_t>(c * n / 12)].push_back(c);
  return all;
}

void expect_agreement(const Trained& cuda, const Trained& cpu, double first_loss, double gradient, double last_loss) {
  EXPECT_NEAR(cuda.losses.front(), cpu.losses.front(), first_loss * cpu.losses.front());
  EXPECT_LE(relative(cuda.first_gradients, cpu.first_gradients), gradient);
  EXPECT_NEAR(cuda.losses.back(), cpu.losses.back(), last_loss * cpu.losses.back());
  EXPECT_LT(cuda.losses.back(), cuda.losses.front());
}

TEST_F(CudaStep, steps_agree_with_the_cpu_in_float) {
  SmallModel cpu(corpus_), cuda(corpus_, DType::f32, kCuda);
  EXPECT_EQ(cpu.weights(), cuda.weights());
  expect_agreement(train(cuda, everything(), pieces(1), 3), train(cpu, everything(), pieces(1), 3), 1e-6, 1e-4, 1e-4);
}

TEST_F(CudaStep, steps_agree_with_the_cpu_in_bf16) {
  SmallModel cpu(corpus_, DType::bf16), cuda(corpus_, DType::bf16, kCuda);
  expect_agreement(train(cuda, everything(), pieces(1), 3), train(cpu, everything(), pieces(1), 3), 5e-3, 5e-2, 2e-2);
}

TEST_F(CudaStep, accumulation_and_recompute_change_nothing_but_rounding) {
  SmallModel whole(corpus_, DType::f32, kCuda), parts(corpus_, DType::f32, kCuda);
  StepRule rule = everything();
  const Trained once = train(whole, rule, pieces(1), 1);
  rule.activations = PassOptions::Activations::recompute;
  const Trained twice = train(parts, rule, pieces(2), 1);
  EXPECT_NEAR(twice.losses.front(), once.losses.front(), 1e-6 * once.losses.front());
  EXPECT_LE(relative(twice.first_gradients, once.first_gradients), 1e-4);
}

TEST_F(CudaStep, a_gradient_that_is_not_finite_changes_nothing_and_is_named_when_somebody_looks) {
  SmallModel m(corpus_, DType::bf16, kCuda);
  Parameters& all = m.model->parameters();
  const NamedParameter& p = *all.find("cell_bert.encoder.layer.1.output.dense.weight");
  all.put(all.master(p), p, [](std::span<float> w) { w[7] = std::numeric_limits<float>::quiet_NaN(); });
  all.refresh_storage();
  const std::vector<float> before = m.weights();
  const auto alone = comm_alone();
  Step step(*m.model, m.data, *alone, everything());
  const PendingStep pending = step.begin(41, {{3, 9}}, 1e-3f);
  const std::vector<float> after = m.weights();
  EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);
  try {
    step.finish(pending);
    FAIL() << "no error";
  } catch (const NumericalError& e) {
    EXPECT_NE(std::string(e.what()).find("stage 2, step 42"), std::string::npos) << e.what();
  }
}

TEST_F(CudaStep, uploads_survive_what_the_host_does_next) {
  std::vector<std::vector<std::int32_t>> wanted;
  std::vector<Tensor> there;
  std::vector<std::int32_t> values;
  for (std::int32_t i = 0; i < 60; ++i) {  // several rounds of the ring, sizes that do not divide it
    values.assign(static_cast<std::size_t>(1000003 + 17 * i), i);
    values.front() = -i;
    there.push_back(Tensor::from(values, kCuda));
    wanted.push_back({values.front(), values.back()});
  }
  for (std::size_t i = 0; i < there.size(); ++i) {
    const std::vector<std::int32_t> back = there[i].to_host<std::int32_t>();
    EXPECT_EQ((std::vector<std::int32_t>{back.front(), back.back()}), wanted[i]) << i;
  }
}

TEST_F(CudaStep, a_checkpoint_written_there_continues_on_the_cpu) {
  SmallModel cuda(corpus_, DType::f32, kCuda), cpu(corpus_);
  train(cuda, everything(), pieces(1), 1);
  ModelFacts facts;
  facts.genes = cuda.data.vocabulary(), facts.word_piece = cuda.word_piece;
  ParameterSnapshot numbers;
  numbers.take(cuda.model->parameters());
  write_checkpoint(folder_ / "checkpoints", {*cuda.model, facts, {2, 1, 3, 1}, "", {}}, numbers, 1);
  restore(*newest_checkpoint(folder_ / "checkpoints").path, *cpu.model);
  EXPECT_EQ(cpu.weights(), cuda.weights());
  const Parameters &there = cuda.model->parameters(), &here = cpu.model->parameters();
  for (const NamedParameter& p : here.named()) {
    const HostNumbers moment = there.numbers(there.moment2(*there.find(p.name)), p);
    ASSERT_TRUE(std::equal(moment.values.begin(), moment.values.end(), here.moment2(p))) << p.name;
  }
}

TEST_F(CudaStep, cells_get_the_same_scores_as_on_the_cpu) {
  SmallModel cpu(corpus_), cuda(corpus_, DType::f32, kCuda);
  std::vector<TokenList> cells;
  for (std::int64_t c = 0; c < 6; ++c) cells.push_back(cpu.data.sequence(c, 41));
  std::vector<std::vector<TokenList>> texts;
  for (std::int32_t g = 0; g < std::ssize(cpu.data.groups()); ++g) texts.push_back({cpu.data.text_tokens(cpu.data.texts_of_group(g)[0])});
  const CellScores there = Annotator(*cuda.model, texts, {})(cells), here = Annotator(*cpu.model, texts, {})(cells);
  for (std::size_t i = 0; i < here.score.size(); ++i) EXPECT_NEAR(there.score[i], here.score[i], 1e-5) << i;
  EXPECT_LE(relative(there.z, here.z), 1e-5);
}

}  // namespace
}  // namespace lc::test
