// The global step on several ranks, as threads: the same losses, gradients and weights as on one.
#include <gtest/gtest.h>

#include <mutex>

#include "engine/errors.h"
#include "tests/support/comm_threads.h"
#include "tests/train/small_corpus.h"
#include "train/step.h"

namespace lc::test {
namespace {

// `steps` steps over the first `cells` cells, rank r with the r-th of equal shares, each in `micro` micro-batches.
std::vector<Trained> train(const std::filesystem::path& corpus, int ranks, std::int64_t cells, int micro, int steps) {
  std::vector<Trained> all(static_cast<std::size_t>(ranks));
  on_ranks(ranks, [&](Communicator& c) {
    SmallModel m(corpus);
    std::vector<Samples> share(static_cast<std::size_t>(micro));
    const std::int64_t begin = cells * c.rank() / ranks, end = cells * (c.rank() + 1) / ranks;
    for (std::int64_t i = begin; i < end; ++i) share[static_cast<std::size_t>((i - begin) * micro / (end - begin))].push_back(i);
    Step step(*m.model, m.data, c, everything());
    Trained& t = all[static_cast<std::size_t>(c.rank())];
    for (int n = 0; n < steps; ++n) {
      t.losses.push_back(step.run(static_cast<std::uint32_t>(n), share, 1e-3f).loss);
      if (n == 0) t.first_gradients = m.gradients();
    }
    t.weights = m.weights();
  });
  return all;
}

class Ranks : public testing::Test {
 protected:
  void SetUp() override { write_corpus(corpus_, {.cells = 24, .groups = 4, .without_text = 3}); }
  TemporaryFolder folder_;
  const std::filesystem::path corpus_ = folder_ / "c.h5";
};

TEST_F(Ranks, give_the_losses_and_gradients_of_one_whatever_their_number) {
  const Trained alone = train(corpus_, 1, 24, 1, 3)[0];
  for (const int ranks : {2, 3, 4}) {
    const std::vector<Trained> all = train(corpus_, ranks, 24, 1, 3);
    for (const Trained& t : all) {
      EXPECT_NEAR(t.losses.front(), alone.losses.front(), 1e-6 * alone.losses.front()) << ranks;
      EXPECT_NEAR(t.losses.back(), alone.losses.back(), 1e-4 * alone.losses.back()) << ranks;
      EXPECT_LE(relative(t.first_gradients, alone.first_gradients), 1e-4) << ranks;
      EXPECT_EQ(t.losses, all[0].losses) << "ranks disagree";
      EXPECT_EQ(t.weights, all[0].weights) << "ranks drift apart";
    }
  }
}

TEST_F(Ranks, accumulate_too) {
  const Trained alone = train(corpus_, 1, 24, 1, 1)[0], shared = train(corpus_, 2, 24, 3, 1)[1];
  EXPECT_NEAR(shared.losses.front(), alone.losses.front(), 1e-6 * alone.losses.front());
  EXPECT_LE(relative(shared.first_gradients, alone.first_gradients), 1e-4);
}

TEST_F(Ranks, work_with_an_empty_share) {
  const Trained alone = train(corpus_, 1, 3, 1, 2)[0];
  for (const Trained& t : train(corpus_, 4, 3, 1, 2)) {
    EXPECT_NEAR(t.losses.front(), alone.losses.front(), 1e-6 * alone.losses.front());
    EXPECT_LE(relative(t.first_gradients, alone.first_gradients), 1e-4);
  }
}

TEST_F(Ranks, give_equal_bits_twice) { EXPECT_EQ(train(corpus_, 3, 24, 1, 2)[1].weights, train(corpus_, 3, 24, 1, 2)[2].weights); }

// One rank computes nonsense, as broken hardware does: it is named.
TEST_F(Ranks, a_number_that_is_none_ends_all_and_names_its_rank) {
  std::vector<std::string> said(3);
  on_ranks(3, [&](Communicator& c) {
    SmallModel m(corpus_);
    const Parameters& weights = m.model->parameters();
    if (c.rank() == 1) weights.master(*weights.find("cell_bert.encoder.layer.0.attention.self.query.bias"))[0] = std::nanf("");
    Step step(*m.model, m.data, c, everything());
    try {
      step.run(6, {{3 * c.rank(), 3 * c.rank() + 1, 3 * c.rank() + 2}}, 1e-3f);
    } catch (const NumericalError& e) {
      said[static_cast<std::size_t>(c.rank())] = e.what();
    }
  });
  for (const std::string& s : said) {
    EXPECT_NE(s.find("stage 2, step 7, on rank 1: "), std::string::npos) << s;
    EXPECT_NE(s.find("samples 0 1 2 3 4 5 6 7 8;"), std::string::npos) << s;
  }
}

TEST_F(Ranks, abort_ends_the_collectives_of_all) {
  int ended = 0;
  std::mutex mutex;
  EXPECT_THROW(on_ranks(3,
                        [&](Communicator& c) {
                          if (c.rank() == 2) c.abort(7);
                          try {
                            c.barrier();
                          } catch (const PeerError& e) {
                            EXPECT_NE(std::string(e.what()).find("code 7"), std::string::npos) << e.what();
                            const std::lock_guard lock(mutex);
                            ++ended;
                            throw;
                          }
                        }),
               PeerError);
  EXPECT_EQ(ended, 3);
}

TEST_F(Ranks, a_rank_that_fails_ends_the_others) {
  int ended = 0;
  std::mutex mutex;
  EXPECT_THROW(on_ranks(3,
                        [&](Communicator& c) {
                          if (c.rank() == 1) throw DataError("a file is gone");
                          try {
                            c.barrier();
                          } catch (const PeerError& e) {
                            EXPECT_NE(std::string(e.what()).find("a file is gone"), std::string::npos);
                            const std::lock_guard lock(mutex);
                            ++ended;
                          }
                        }),
               DataError);
  EXPECT_EQ(ended, 2);
}

}  // namespace
}  // namespace lc::test
