#include "train/log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::TemporaryFolder;

StepRecord record(int stage, std::int64_t step) {
  StepRecord r;
  r.stage = stage, r.step = step, r.epoch = 0.25, r.losses = {3.5, 2.25, std::nullopt, std::nan(""), 0.75};
  r.lr = 1e-4, r.grad_norm = 2, r.samples_per_s = 10, r.tokens_per_s = 5000, r.data_s = 0.01, r.step_s = 1.6, r.skipped_negatives = 3,
  r.peak_bytes = 1 << 20;
  return r;
}

std::vector<nlohmann::ordered_json> lines_of(const std::filesystem::path& path) {
  std::vector<nlohmann::ordered_json> lines;
  std::istringstream in(read_file(path));
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::ordered_json::parse(line));
  return lines;
}

TEST(TrainLog, ALineHoldsExactlyTheFieldsOfTheContract) {
  const TemporaryFolder folder;
  TrainLog log(folder / "train.jsonl");
  log.write(record(1, 10));
  const auto lines = lines_of(folder / "train.jsonl");  // flushed while the log is open
  ASSERT_EQ(lines.size(), 1u);
  std::string keys;
  for (const auto& item : lines[0].items()) keys += item.key() + " ";
  EXPECT_EQ(keys,
            "stage step epoch loss mgm cell_cell cell_text matching lr grad_norm samples_per_s tokens_per_s data_s step_s "
            "skipped_negatives peak_bytes time ");
  EXPECT_EQ(lines[0]["loss"], 3.5);
  EXPECT_EQ(lines[0]["lr"], 1e-4);
  EXPECT_TRUE(lines[0]["cell_cell"].is_null());
  EXPECT_TRUE(lines[0]["cell_text"].is_null()) << "JSON has no NaN";
  EXPECT_EQ(lines[0]["peak_bytes"], 1 << 20);
}

TEST(RankSpread, NamesTheRankWithTheMostWorkAndWhatTheOthersWait) {
  const std::vector<RankTimes> ranks = {{0.1, 0.5, 0.3, 1.5, 1000}, {0.2, 0.0, 0.0, 2.0, 1200}, {0.3, 1.0, 0.6, 1.0, 800}};
  const RankSpread s = spread_of(ranks, 2.0);
  EXPECT_EQ(s.slowest, 1);
  EXPECT_DOUBLE_EQ(s.imbalance, 2.0 / 1.5 - 1);
  EXPECT_DOUBLE_EQ(s.data_s.least, 0.1);
  EXPECT_DOUBLE_EQ(s.data_s.mean, 0.2);
  EXPECT_DOUBLE_EQ(s.comm_s.most, 1.0);
  EXPECT_DOUBLE_EQ(s.sums_s.mean, 0.3);
  EXPECT_DOUBLE_EQ(s.tokens_per_s.mean, 500);
}

TEST(TrainLog, ALineOfSeveralRanksSaysHowAlikeTheyWere) {
  const TemporaryFolder folder;
  StepRecord r = record(1, 10);
  r.ranks = spread_of(std::vector<RankTimes>{{0.1, 0.5, 0.25, 1.5, 1000}, {0.2, 0.0, 0.0, 2.0, 1200}}, 2.0);
  TrainLog(folder / "train.jsonl").write(r);
  const auto line = lines_of(folder / "train.jsonl").at(0);
  EXPECT_EQ(line["comm_s"], 0.25);
  EXPECT_EQ(line["sums_s"], 0.125);
  EXPECT_EQ(line["ranks"]["sums_s"], (nlohmann::ordered_json{0.0, 0.125, 0.25}));
  EXPECT_EQ(line["ranks"]["slowest"], 1);
  EXPECT_EQ(line["ranks"]["work_s"], (nlohmann::ordered_json{1.5, 1.75, 2.0})) << "least, mean, most";
  EXPECT_NEAR(line["imbalance"].get<double>(), 2.0 / 1.75 - 1, 1e-12);
}

TEST(TrainLog, ValidationIsAnEvent) {
  const TemporaryFolder folder;
  ValidationRecord v;
  v.stage = 2, v.step = 500, v.cells = 33, v.losses.cell_text = 1.5, v.recall_at_1 = 0.5;
  TrainLog(folder / "train.jsonl").write(v);
  const auto line = lines_of(folder / "train.jsonl").at(0);
  EXPECT_EQ(line["event"], "validate");
  EXPECT_EQ(line["recall_at_1"], 0.5);
  EXPECT_TRUE(line["zero_shot_accuracy"].is_null());
}

TEST(TrainLog, IsCutAfterTheCheckpoint) {
  const TemporaryFolder folder;
  const auto path = folder / "train.jsonl";
  {
    TrainLog log(path);
    for (const int stage : {1, 2}) {
      for (const int step : {10, 20, 30}) log.write(record(stage, step));
      ValidationRecord v;
      v.stage = stage, v.step = 30;
      log.write(v);
    }
  }
  std::ofstream(path, std::ios::app) << R"({"stage":1,"step":4)";  // killed while writing
  cut_log(path, 2, 20);
  auto lines = lines_of(path);
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines.back()["stage"], 2);
  EXPECT_EQ(lines.back()["step"], 20);
  cut_log(path, 1, 30);
  lines = lines_of(path);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines.back()["event"], "validate");
  TrainLog(path).write(record(2, 10));
  EXPECT_EQ(lines_of(path).size(), 5u) << "what comes next is appended";
  cut_log(path, 0, 0);
  EXPECT_TRUE(lines_of(path).empty());
  cut_log(folder / "none.jsonl", 1, 1);
  EXPECT_FALSE(std::filesystem::exists(folder / "none.jsonl"));
}

TEST(TrainLog, ThatCannotBeWrittenIsAResourceError) {
  const TemporaryFolder folder;
  EXPECT_THROW(TrainLog(folder / "no/such/folder.jsonl"), ResourceError);
  TrainLog full("/dev/full");
  EXPECT_THROW(full.write(record(1, 1)), ResourceError);
}

std::string shown(Progress::Show show, int updates) {
  std::FILE* file = std::tmpfile();
  {
    Progress progress(updates, 0, show, file);
    for (int i = 1; i <= updates; ++i) progress.update(record(1, i), i);
  }
  std::rewind(file);
  std::string text;
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) text += static_cast<char>(c);
  std::fclose(file);
  return text;
}

TEST(Progress, NamesActiveLossesRateAndTimeLeft) {
  StepRecord r = record(2, 30);
  r.losses.cell_text.reset();
  EXPECT_EQ(
      Progress::text(r, 130, 200, 3725),
      "stage 2 step 30  130/200 (65%)  1h 02m left  10.0 cells/s  loss 3.5000  mgm 2.2500  matching 0.7500  lr 1.00e-04  5000 tokens/s");
  EXPECT_NE(Progress::text(r, 130, 200, 62).find("1:02 left"), std::string::npos);
  EXPECT_NE(Progress::text(r, 130, 200, 90000).find("1d 1h left"), std::string::npos);
}

TEST(Progress, StaysInOneLineOnATerminalOnly) {
  const std::string terminal = shown(Progress::Show::in_place, 3), pipe = shown(Progress::Show::automatic, 30);
  EXPECT_EQ(std::count(terminal.begin(), terminal.end(), '\r'), 3);
  EXPECT_EQ(std::count(terminal.begin(), terminal.end(), '\n'), 1) << "its end";
  EXPECT_NE(terminal.find("tokens/s\x1b[K"), std::string::npos) << "the whole line where the width is unknown";
  EXPECT_EQ(pipe.find('\r'), std::string::npos);
  EXPECT_EQ(std::count(pipe.begin(), pipe.end(), '\n'), 2) << "the first and the last of thirty quick ones";
  EXPECT_TRUE(shown(Progress::Show::nothing, 3).empty());
}

}  // namespace
}  // namespace lc
