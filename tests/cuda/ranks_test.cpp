// Training on several GPUs, as threads over NCCL's twin: the losses of one, equal bits, and the driver itself.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tests/cuda/on_gpus.h"
#include "tests/train/small_corpus.h"
#include "train/pretrain.h"
#include "train/step.h"

namespace lc::test {
namespace {

constexpr std::int64_t kCells = 8;

class CudaRanks : public testing::Test {
 protected:
  void SetUp() override { write_corpus(corpus_, {.cells = kCells, .groups = 3, .without_text = 1, .genes = 20, .longest = 8}); }
  TemporaryFolder folder_;
  const std::filesystem::path corpus_ = folder_ / "c.h5";
};

// `steps` steps, rank r with the r-th of equal shares of the cells.
std::vector<Trained> train(const std::filesystem::path& corpus, int ranks, const StepRule& rule, int steps) {
  std::vector<Trained> all(static_cast<std::size_t>(ranks));
  const auto body = [&](Communicator& c, const Queue& queue) {
    SmallModel m(corpus, DType::f32, queue);
    Samples share;
    for (std::int64_t i = kCells * c.rank() / ranks; i < kCells * (c.rank() + 1) / ranks; ++i) share.push_back(i);
    Step step(*m.model, m.data, c, rule);
    Trained& t = all[static_cast<std::size_t>(c.rank())];
    std::vector<PendingStep> waiting;
    for (int n = 0; n < steps; ++n) {
      waiting.push_back(step.begin(static_cast<std::uint32_t>(n), {share}, 1e-3f));
      if (n == 0) t.first_gradients = m.gradients();
    }
    for (const PendingStep& w : waiting) t.losses.push_back(step.finish(w).loss);
    t.weights = m.weights();
  };
  if (ranks == 1)
    body(*comm_alone(), {Device::cuda});
  else
    on_gpus(ranks, body);
  return all;
}

void expect_those_of_one(const std::vector<Trained>& all, const Trained& alone, double last_loss) {
  for (const Trained& t : all) {
    EXPECT_NEAR(t.losses.front(), alone.losses.front(), 1e-6 * alone.losses.front());
    EXPECT_NEAR(t.losses.back(), alone.losses.back(), last_loss * alone.losses.back());
    EXPECT_LE(relative(t.first_gradients, alone.first_gradients), 1e-4);
    EXPECT_EQ(t.losses, all[0].losses) << "ranks disagree";
    EXPECT_EQ(t.weights, all[0].weights) << "ranks drift apart";
  }
}

// The cell tower's objectives, for time: all four for twenty steps took three times as long and agreed as well.
TEST_F(CudaRanks, follow_the_losses_of_one_for_twenty_steps) {
  StepRule rule = everything(9);
  rule.stage = 1, rule.cell_text = rule.matching = 0;
  const Trained alone = train(corpus_, 1, rule, 20)[0];
  EXPECT_LT(alone.losses.back(), 0.9 * alone.losses.front());
  expect_those_of_one(train(corpus_, 2, rule, 20), alone, 1e-4);
}

TEST_F(CudaRanks, of_unequal_shares_too_and_equal_runs_give_equal_bits) {
  const std::vector<Trained> first = train(corpus_, 3, everything(9), 2), second = train(corpus_, 3, everything(9), 2);
  expect_those_of_one(first, train(corpus_, 1, everything(9), 2)[0], 1e-5);
  EXPECT_EQ(first[0].losses, second[1].losses);
  EXPECT_EQ(first[0].weights, second[2].weights);
}

// Around NCCL's ring an element's sum begins at a rank that the cut decides: equal but for rounding. Two ranks have but one order.
TEST_F(CudaRanks, sum_gradients_in_slices_beside_backward_as_in_one) {
  StepRule cut = everything(9), whole = everything(9);
  cut.least_slice = 1;
  EXPECT_EQ(train(corpus_, 2, cut, 2)[1].weights, train(corpus_, 2, whole, 2)[0].weights);
  const std::vector<Trained> three = train(corpus_, 3, cut, 1);
  EXPECT_LE(relative(three[0].first_gradients, train(corpus_, 3, whole, 1)[0].first_gradients), 1e-6);
  EXPECT_EQ(three[0].first_gradients, three[2].first_gradients);
}

// ---- The driver

Options options(const std::filesystem::path& corpus) {
  return parse_options("", {"data.corpus=[\"" + corpus.string() + "\"]", "model.preset=tiny", "data.max_cell_tokens=9",
                            "data.max_text_tokens=16", "train.device=cuda", "train.precision=fp32", "train.batch_size=8",
                            "train.log_every=2", "stage1.steps=2", "stage2.steps=2", "stage2.lr=1e-3", "checkpoint.every=0"});
}

// Ranks that no MPI started, as under torchrun.
void pretrain_on_gpus(int ranks, PretrainSetup setup) {
  static int runs = 0;
  const int port = 20000 + (::getpid() * 37 + 16 * runs++) % 20000;
  setup.progress = Progress::Show::nothing;
  shim::device_count = ranks;
  on_ranks(ranks, [&](Communicator& thread) {
    const auto host = comm_sockets({"127.0.0.1", port, thread.rank(), ranks, setup.run.string()});
    PretrainSetup own = setup;
    own.queue = Queue{Device::cuda, thread.rank()};
    const auto gpus = ranks == 1 ? comm_alone() : comm_nccl(*host, {*own.queue, 600});
    pretrain(own, *gpus);
  });
  shim::device_count = 1;
}

std::vector<double> losses(const std::filesystem::path& run) {
  std::vector<double> all;
  std::istringstream lines(read_file(run / "train.jsonl"));
  for (std::string line; std::getline(lines, line);) all.push_back(nlohmann::json::parse(line)["loss"].get<double>());
  return all;
}

TEST_F(CudaRanks, pretrain_as_one_gpu_does_stop_together_and_resume_to_the_same_bits) {
  const auto model = [&](const char* run) { return read_file(folder_ / run / "model" / "cell_bert" / "model.safetensors"); };
  PretrainSetup setup{.options = options(corpus_), .run = folder_ / "one"};
  pretrain_on_gpus(1, setup);
  setup.run = folder_ / "two";
  pretrain_on_gpus(2, setup);
  const std::vector<double> one = losses(folder_ / "one"), two = losses(folder_ / "two");
  ASSERT_EQ(one.size(), two.size());
  EXPECT_NEAR(two.front(), one.front(), 1e-6 * one.front());
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(two[i], one[i], 1e-4 * one[i]) << i;

  setup.run = folder_ / "stopped";
  setup.say = [raised = std::make_shared<std::atomic<bool>>(false)](const std::string& line) {
    if (line.find("stage 2: text_bert") != std::string::npos && !raised->exchange(true)) std::raise(SIGUSR1);
  };
  EXPECT_THROW(pretrain_on_gpus(2, setup), Stopped);
  EXPECT_FALSE(std::filesystem::exists(setup.run / "model"));
  setup.say = [](const std::string&) {}, setup.resume = Resume::yes;
  pretrain_on_gpus(2, setup);
  EXPECT_EQ(model("stopped"), model("two"));
}

}  // namespace
}  // namespace lc::test
