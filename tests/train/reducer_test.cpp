// The sum of the gradients, slice by slice: what one sum of the whole gives, begun while backward goes on.
#include "train/reducer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/comm_threads.h"
#include "tests/train/small_corpus.h"
#include "train/step.h"

namespace lc::test {
namespace {

StepRule all_in_slices(std::int64_t least_slice) {
  StepRule r = everything();
  r.least_slice = least_slice;
  return r;
}
const std::vector<std::string> kNotInStage1 = {"text_bert.*", "text_proj.*", "ctm_head.*"};

// Passes all on, and remembers what was asked for and how the whole arena looked when a sum began.
class Observed final : public Communicator {
 public:
  enum class Sum { slices, whole };  // whole: nothing until the end, then all of the arena at once
  Observed(Communicator& ranks, const Parameters& parameters, Sum how) : ranks_(ranks), parameters_(parameters), how_(how) {}
  int rank() const override { return ranks_.rank(); }
  int size() const override { return ranks_.size(); }
  void all_reduce_sum(std::span<float> values) override { ranks_.all_reduce_sum(values); }
  void all_reduce_sum(std::span<double> values) override { ranks_.all_reduce_sum(values); }
  std::vector<float> all_gather_rows(std::span<const float> rows, std::int64_t columns) override {
    return ranks_.all_gather_rows(rows, columns);
  }
  std::vector<std::int64_t> all_gather_rows(std::span<const std::int64_t> values) override { return ranks_.all_gather_rows(values); }
  void broadcast(std::span<std::byte> bytes, int from) override { ranks_.broadcast(bytes, from); }
  void barrier() override { ranks_.barrier(); }
  void begin_sum_on(const Queue& queue, std::span<float> values) override {
    const std::span<float> whole = parameters_.gradients();
    slices.push_back({values.data() - whole.data(), values.data() - whole.data() + std::ssize(values)});
    arenas.emplace_back(whole.begin(), whole.end());
    if (how_ == Sum::slices) ranks_.begin_sum_on(queue, values);
  }
  void end_sums_on(const Queue& queue) override {
    ++ends, ranks_.end_sums_on(queue);
    if (how_ == Sum::whole) ranks_.all_reduce_sum(parameters_.gradients());
  }
  void abort(int exit_code) override { ranks_.abort(exit_code); }

  std::vector<GradientSlice> slices;
  std::vector<std::vector<float>> arenas;
  int ends = 0;

 private:
  Communicator& ranks_;
  const Parameters& parameters_;
  const Sum how_;
};

struct Summed {
  std::vector<GradientSlice> slices;
  std::vector<std::vector<float>> arenas;
  std::vector<float> gradients;
  int ends = 0;
};

class ReducerTest : public testing::Test {
 protected:
  void SetUp() override { write_corpus(corpus_, {.cells = 24, .groups = 4, .without_text = 3}); }
  // One step of each rank over its share of `cells` cells in `micro` micro-batches.
  std::vector<Summed> sum(int ranks, const StepRule& rule, const std::vector<std::string>& frozen = {}, std::int64_t cells = 24,
                          int micro = 1) const {
    std::vector<Summed> all(static_cast<std::size_t>(ranks));
    on_ranks(ranks, [&](Communicator& c) {
      SmallModel m(corpus_);
      m.model->parameters().freeze(frozen);
      std::vector<Samples> share(static_cast<std::size_t>(micro));
      const std::int64_t begin = cells * c.rank() / ranks, end = cells * (c.rank() + 1) / ranks;
      for (std::int64_t i = begin; i < end; ++i) share[static_cast<std::size_t>((i - begin) * micro / (end - begin))].push_back(i);
      Observed observed(c, m.model->parameters(), how_);
      Step(*m.model, m.data, observed, rule).run(0, share, 0, Update::gradients_only);
      all[static_cast<std::size_t>(c.rank())] = {observed.slices, observed.arenas, m.gradients(), observed.ends};
    });
    return all;
  }
  TemporaryFolder folder_;
  const std::filesystem::path corpus_ = folder_ / "c.h5";
  Observed::Sum how_ = Observed::Sum::slices;
};

std::vector<std::pair<std::int64_t, std::int64_t>> pairs(const std::vector<GradientSlice>& slices) {
  std::vector<std::pair<std::int64_t, std::int64_t>> all;
  for (const GradientSlice& s : slices) all.push_back({s.begin, s.end});
  return all;
}

TEST_F(ReducerTest, at_most_six_slices_hold_what_is_trained_once_the_last_declared_first) {
  SmallModel m(corpus_);
  Parameters& p = m.model->parameters();
  const std::int64_t embeddings = p.find("cell_bert.encoder.layer.0.attention.self.query.weight")->offset;
  for (const std::vector<std::string>& frozen : {std::vector<std::string>(), kNotInStage1, {"cell_bert.*"}, {"*"}}) {
    p.freeze(frozen);
    std::int64_t trained = 0;
    for (const ParameterPlace& place : p.places()) trained += place.trained ? place.end - place.begin : 0;
    const bool cells = trained > 0 && frozen != std::vector<std::string>{"cell_bert.*"};
    for (const std::int64_t least : {std::int64_t{1}, std::int64_t{9000}, Reducer::kLeastSlice}) {
      const std::vector<GradientSlice> slices = gradient_slices(p, least);
      std::int64_t summed = 0, before = p.size();
      for (const GradientSlice& s : slices) {
        EXPECT_LE(s.end, before);
        EXPECT_LT(s.begin, s.end);
        summed += s.end - s.begin, before = s.begin;
        EXPECT_TRUE(s.end - s.begin >= least || &s - slices.data() >= std::ssize(slices) - 2);
      }
      EXPECT_EQ(summed, trained) << testing::PrintToString(frozen);
      EXPECT_LE(slices.size(), 6u);
      if (cells) {
        EXPECT_EQ(slices.back().begin, 0);
        EXPECT_EQ(slices.back().end, embeddings) << "what is finished last, and nothing else";
      }
      if (least == Reducer::kLeastSlice) {
        EXPECT_EQ(slices.size(), trained == 0 ? 0u : 2u);
      }
      if (least == 1 && frozen.empty()) {
        EXPECT_GE(slices.size(), 4u);
      }
    }
  }
}

// Sums of every element are taken in the order of the ranks, here as over MPI, so the cut does not show. (Around NCCL's ring it does.)
TEST_F(ReducerTest, the_sum_in_slices_has_the_bits_of_one_sum_of_the_whole) {
  for (const int ranks : {2, 3, 4}) {
    how_ = Observed::Sum::whole;
    const std::vector<Summed> whole = sum(ranks, all_in_slices(1));
    how_ = Observed::Sum::slices;
    const std::vector<Summed> few = sum(ranks, all_in_slices(Reducer::kLeastSlice)), many = sum(ranks, all_in_slices(1));
    EXPECT_EQ(few[0].slices.size(), 2u);
    EXPECT_GE(many[0].slices.size(), 4u);
    for (const Summed& s : many) EXPECT_EQ(s.gradients, whole[0].gradients) << ranks;
    for (const Summed& s : few) EXPECT_EQ(s.gradients, whole[0].gradients) << ranks;
    EXPECT_EQ(many[1].ends, 1);
  }
}

TEST_F(ReducerTest, sums_begin_while_backward_goes_on) {
  const Summed s = sum(2, all_in_slices(1))[0];
  const GradientSlice& last = s.slices.back();
  const auto numbers = [&](const std::vector<float>& arena) {
    return std::vector<float>(arena.begin() + last.begin, arena.begin() + last.end);
  };
  EXPECT_NE(numbers(s.arenas.front()), numbers(s.arenas.back())) << "the last slice was whole when the first was summed";
}

TEST_F(ReducerTest, frozen_weights_are_left_out) {
  StepRule rule = all_in_slices(1);
  rule.stage = 1, rule.cell_text = rule.matching = 0;
  const SmallModel m(corpus_);
  const std::int64_t text = m.model->parameters().find("text_bert.embeddings.word_embeddings.weight")->offset;
  ASSERT_LT(text, 3 * m.model->parameters().size() / 4);
  for (const Summed& s : sum(2, rule, kNotInStage1)) {
    for (const GradientSlice& slice : s.slices) EXPECT_LE(slice.end, text);
    EXPECT_EQ(s.slices.back().begin, 0);
  }
}

TEST_F(ReducerTest, of_several_micro_batches_the_last_alone_is_followed) {
  const std::vector<Summed> once = sum(2, all_in_slices(1)), three = sum(2, all_in_slices(1), {}, 24, 3);
  EXPECT_EQ(pairs(three[0].slices), pairs(once[0].slices));
  EXPECT_EQ(three[1].ends, 1);
  EXPECT_EQ(three[1].gradients, sum(2, all_in_slices(Reducer::kLeastSlice), {}, 24, 3)[0].gradients);
  EXPECT_LE(relative(three[0].gradients, once[0].gradients), 1e-4);
}

// Three cells for four ranks, one of them without a text: nobody's order depends on its own work.
TEST_F(ReducerTest, every_rank_sums_the_same_slices_in_the_same_order) {
  const std::vector<Summed> all = sum(4, all_in_slices(1), {}, 3);
  for (const Summed& s : all) {
    EXPECT_EQ(pairs(s.slices), pairs(all[0].slices));
    EXPECT_EQ(s.gradients, all[0].gradients);
  }
}

TEST_F(ReducerTest, one_rank_sums_nothing) { EXPECT_TRUE(sum(1, all_in_slices(1))[0].slices.empty()); }

}  // namespace
}  // namespace lc::test
