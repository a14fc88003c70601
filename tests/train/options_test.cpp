#include "train/options.h"

#include <gtest/gtest.h>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;

Options with(const std::string& toml, const std::vector<std::string>& overrides = {}) { return parse_options(toml, overrides); }

TEST(Options, DefaultsAreThoseOfTheContract) {
  const Options o = with("");
  EXPECT_EQ(o.model.preset, "langcell");
  EXPECT_EQ(o.data.corpus, std::vector<std::string>{"corpus.h5"});
  EXPECT_EQ(o.data.max_cell_tokens, 2048);
  EXPECT_EQ(o.train.batch_size, 256);
  EXPECT_EQ(o.train.log_every, 10);
  EXPECT_EQ(o.stage1.steps, 1000);
  EXPECT_EQ(o.stage1.lr, 1e-4);
  EXPECT_EQ(o.stage2.lr, 1e-5);
  EXPECT_EQ(o.stage1.warmup, 0.05);
  EXPECT_EQ(o.stage1.objectives.cell_text, 0);
  EXPECT_EQ(o.stage2.objectives.matching, 1);
  EXPECT_EQ(o.stage2.same_text, SamePairs::positive);
  EXPECT_EQ(o.checkpoint.keep, 3);
  EXPECT_EQ(o.ranks.silence_s, 30);
  EXPECT_EQ(o.ranks.timeout_s, 1800);
}

TEST(Options, AreReadFromToml) {
  const Options o = with(
      "[model]\npreset = 'small'\n[data]\ncorpus = ['a.h5', 'b.h5']\nholdout = 0.1\n[train]\nrecompute = true\n"
      "[stage1]\nlr = 1\ndecay = 'cosine'\nfreeze = ['cell_bert.*']\n[stage2]\nobjectives = { mgm = 0 }\nsame_text = 'merge'\n");
  EXPECT_EQ(o.model.preset, "small");
  EXPECT_EQ(o.data.corpus.size(), 2u);
  EXPECT_TRUE(o.train.recompute);
  EXPECT_EQ(o.stage1.lr, 1.0);
  EXPECT_EQ(o.stage1.decay, Decay::cosine);
  EXPECT_EQ(o.stage1.freeze, std::vector<std::string>{"cell_bert.*"});
  EXPECT_EQ(o.stage2.objectives.mgm, 0);
  EXPECT_EQ(o.stage2.objectives.cell_text, 1) << "what is not named keeps its default";
  EXPECT_EQ(o.stage2.same_text, SamePairs::merge);
}

TEST(Options, AnOverrideIsTomlAndElseAText) {
  const Options o = with("[stage1]\nsteps = 7\n", {"model.preset=tiny", "train.batch_size=33", "data.corpus=/tmp/a b.h5",
                                                   "stage2.freeze=['x*', \"y\"]", "stage2.objectives.mgm=0.5", "train.recompute=true",
                                                   "data.holdout=0.25", "data.holdout_by=donor_id", "stage1.lr=1e-3"});
  EXPECT_EQ(o.model.preset, "tiny");
  EXPECT_EQ(o.train.batch_size, 33);
  EXPECT_EQ(o.data.corpus, std::vector<std::string>{"/tmp/a b.h5"});
  EXPECT_EQ(o.stage2.freeze, (std::vector<std::string>{"x*", "y"}));
  EXPECT_EQ(o.stage2.objectives.mgm, 0.5);
  EXPECT_TRUE(o.train.recompute);
  EXPECT_EQ(o.data.holdout_by, "donor_id");
  EXPECT_EQ(o.stage1.steps, 7);
  EXPECT_EQ(o.stage1.lr, 1e-3);
}

TEST(Options, StepsAndEpochsReplaceEachOther) {
  EXPECT_EQ(with("[stage1]\nepochs = 1.5\n").stage1.epochs, 1.5);
  EXPECT_TRUE(holds(message_of<UsageError>([] { with("[stage1]\nepochs = 1.5\nsteps = 3\n"); }), "got both"));
  const Options o = with("[stage1]\nsteps = 3\n", {"stage1.epochs=2"});
  EXPECT_EQ(o.stage1.epochs, 2.0);
  EXPECT_FALSE(with("[stage1]\nsteps = 0\n").stage1.runs());
  EXPECT_EQ(with(to_toml(o)).stage1.epochs, 2.0);
}

TEST(Options, WhatIsWrittenStartsTheSameRun) {
  const Options o = with(
      "[model]\npreset = \"tiny\"\ninit = 'C:\\dir \"x\"'\n[data]\ncorpus = ['ä b.h5', 'c.h5']\nholdout = 0.1\nholdout_by = 'donor_id'\n"
      "[train]\nseed = 9223372036854775807\n[stage1]\nlr = 0.1\nwarmup = 3\n[stage2]\nlr = 3.0000000000000004e-5\nsteps = 0\nobjectives = "
      "{ matching = 0.3 }\nfreeze = ['a', 'b*']\n");
  const std::string text = to_toml(o);
  const Options again = with(text);
  EXPECT_EQ(to_toml(again), text);
  EXPECT_NO_THROW(require_resumable(o, again));
  EXPECT_EQ(again.stage2.lr, 3.0000000000000004e-5);
  EXPECT_EQ(again.model.init, "C:\\dir \"x\"");
  EXPECT_EQ(again.train.seed, 9223372036854775807);
  EXPECT_EQ(again.data.corpus, o.data.corpus);
  EXPECT_TRUE(holds(text, "[stage2.objectives]\n"));
}

struct Refusal {
  const char *toml, *said;
};

TEST(Options, EveryMistakeIsNamedWithItsKey) {
  const Refusal refusals[] = {
      {"[train]\nbatchsize = 3", "train.batchsize: no such key; did you mean train.batch_size?"},
      {"[training]\nbatch_size = 3", "did you mean"},
      {"[stage2]\nbatch_size = 3", "did you mean train.batch_size?"},
      {"[stage1]\nobjectives = { cell_txt = 1 }", "stage1.objectives.cell_txt: no such key; did you mean"},
      {"[stage1]\nobjectives = { matching = 1 }", "stage1.objectives.matching: no such key; did you mean stage2.objectives.matching?"},
      {"lr = 3", "lr: no such key; did you mean stage1.lr?"},
      {"stage1 = 3", "stage1: wanted a section, got 3"},
      {"[model]\npreset = 'huge'", "model.preset: wanted one of tiny, small, langcell"},
      {"[model]\npreset = 3", "model.preset: wanted a text in quotes, got 3"},
      {"[train]\nbatch_size = 2.5", "train.batch_size: wanted a whole number"},
      {"[train]\nbatch_size = 0", "train.batch_size: wanted a whole number from 1"},
      {"[train]\nrecompute = 1", "train.recompute: wanted true or false, got 1"},
      {"[train]\ndevice = 1", "train.device: wanted a text in quotes, got 1"},
      {"[train]\nbatch_size = 9\naccumulate = 2", "train.batch_size: wanted a multiple of train.accumulate = 2, got 9"},
      {"[data]\nholdout = 1.0", "data.holdout: wanted a number from 0 to below 1, got 1.0"},
      {"[data]\nholdout_by = 'donor'", "data.holdout_by: wanted data.holdout above 0"},
      {"[data]\ncorpus = []", "data.corpus: wanted at least one corpus"},
      {"[data]\ncorpus = ['a', 3]", "data.corpus: wanted a list of texts"},
      {"[data]\nsampling = 'sqrt'", "data.sampling: wanted one of uniform, sqrt_type"},
      {"[stage1]\nlr = nan", "stage1.lr: wanted a number at least 0, got nan"},
      {"[stage1]\nlr = inf", "stage1.lr: wanted a number at least 0, got inf"},
      {"[stage1]\nlr = '1e-3'", "stage1.lr: wanted a number"},
      {"[stage1]\nsteps = -1", "stage1.steps: wanted a whole number at least 0, got -1"},
      {"[stage1]\ntemperature = 0", "stage1.temperature: wanted a number above 0, got 0"},
      {"[stage1]\nmask_rate = 0", "stage1.mask_rate: wanted a number above 0 and below 1"},
      {"[stage1]\ndecay = 'exp'", "stage1.decay: wanted one of linear, cosine, constant, got 'exp'"},
      {"[stage1]\nwarmup = 0.6", "stage1.warmup: wanted at most half"},
      {"[stage1]\nsteps = 10\nwarmup = 6", "stage1.warmup: wanted at most half of the stage's 10 steps, got 6 steps"},
      {"[stage1]\nepochs = 2.0\nwarmup = 0.6", "stage1.warmup: wanted at most half"},
      {"[stage1\nlr = 1", "config:1: not TOML"},
      {"[stage1]\nlr = 1\nlr = 2", "config:3: not TOML"},
  };
  for (const Refusal& r : refusals) {
    SCOPED_TRACE(r.toml);
    EXPECT_TRUE(holds(message_of<UsageError>([&] { with(r.toml); }), r.said));
  }
}

TEST(Options, AnOverrideIsCheckedLikeTheFile) {
  EXPECT_TRUE(holds(message_of<UsageError>([] { with("", {"train.batchsize=3"}); }), "did you mean train.batch_size?"));
  EXPECT_TRUE(holds(message_of<UsageError>([] { with("", {"train.batch_size=many"}); }), "train.batch_size: wanted a whole number"));
  EXPECT_TRUE(holds(message_of<UsageError>([] { with("", {"train.batch_size"}); }), "wanted KEY=VALUE"));
  EXPECT_TRUE(holds(message_of<UsageError>([] { with("", {"=3"}); }), "wanted KEY=VALUE"));
  EXPECT_TRUE(holds(message_of<UsageError>([] { with("stage1 = 3", {"stage1.lr=3"}); }), "stage1: wanted a section"));
  EXPECT_THROW(with("", {"stage1.lr.x=3"}), UsageError);
  EXPECT_THROW(with("", {".lr=3"}), UsageError);
  EXPECT_THROW(with("", {"stage1.lr=3\nstage1.steps=4"}), UsageError);
}

TEST(Options, AResumedRunMayChangeOnlyWhatDoesNotChangeItsPast) {
  const Options before = with("");
  for (const char* free : {"stage1.steps=5", "stage2.epochs=2", "validate.every=7", "checkpoint.every=7", "checkpoint.keep=1",
                           "ranks.silence_s=5", "ranks.timeout_s=60", "train.log_every=1", "train.device=cpu", "train.threads=2"}) {
    EXPECT_NO_THROW(require_resumable(before, with("", {free}))) << free;
  }
  for (const char* fixed : {"stage1.lr=5", "train.seed=1", "data.corpus=x.h5", "model.preset=tiny", "stage2.objectives.mgm=2",
                            "train.batch_size=128", "train.accumulate=2", "stage2.same_text=ignore"}) {
    const std::string key = std::string(fixed).substr(0, std::string(fixed).find('='));
    EXPECT_TRUE(holds(message_of<UsageError>([&] { require_resumable(before, with("", {fixed})); }), key + ": was ")) << fixed;
  }
}

TEST(Options, AFileThatCannotBeReadIsAUsageError) {
  const test::TemporaryFolder folder;
  EXPECT_TRUE(holds(message_of<UsageError>([&] { read_options(folder / "none.toml", {}); }), "none.toml"));
  write_file(folder / "c.toml", "[stage1]\nsteps = 3\n[oops\n");
  EXPECT_TRUE(holds(message_of<UsageError>([&] { read_options(folder / "c.toml", {}); }), "c.toml:3: not TOML"));
  write_file(folder / "c.toml", "[stage1]\nsteps = 3\n");
  EXPECT_EQ(read_options(folder / "c.toml", {"stage1.steps=4"}).stage1.steps, 4);
}

}  // namespace
}  // namespace lc
