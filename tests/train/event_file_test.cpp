#include "train/event_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <set>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tests/support/test_data.h"
#include "train/log.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  return files;
}

// The data of each record, as long as all is whole.
std::vector<std::string> records(const std::string& bytes) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < bytes.size();) {
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data() + at, 8);
    const std::string data = bytes.substr(at + 12, length);
    EXPECT_EQ(bytes.substr(at, 16 + length), tf_record(data));
    all.push_back(data), at += 16 + length;
  }
  return all;
}

TEST(EventFile, ItsChecksumIsCastagnolis) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);            // RFC 3720's polynomial, the usual check value
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFile, AnEventIsAsTheProtobufSays) {
  const std::string event = scalars_event({{"stage", 1}, {"step", 300}, {"loss", 0.5}, {"mgm", nullptr}}, {1.0, 300});
  const std::string wanted(
      "\x09\0\0\0\0\0\0\xf0\x3f"  // 1: wall time, double 1.0
      "\x10\xac\x02"              // 2: step, varint 300
      "\x2a\x13"                  // 5: summary of 19 bytes
      "\x0a\x11"                  // 1: value of 17 bytes
      "\x0a\x0a"
      "train/loss"       // 1: tag
      "\x15\0\0\0\x3f",  // 2: simple value, float 0.5
      9 + 3 + 2 + 2 + 2 + 10 + 5);
  EXPECT_EQ(event, wanted);
  EXPECT_EQ(scalars_event({{"stage", 1}, {"step", 3}, {"time", 1.5}}, {}), "") << "nothing to show";
}

TEST(EventFile, FollowsTheLogAndIsWrittenAnewFromIt) {
  const TemporaryFolder folder;
  StepRecord r;
  r.losses = {3.5, 2.25, {}, {}, {}};
  const auto write = [&](int stage, int step) {
    TrainLog log(folder / "train.jsonl", folder / "events");
    r.stage = stage, r.step = step;
    log.write(r);
    ValidationRecord v;
    v.stage = stage, v.step = step, v.losses.loss = 4;
    log.write(v);
  };
  write(1, 10), write(1, 20), write(2, 10);
  std::ofstream(folder / "train.jsonl", std::ios::app) << R"({"stage":2,"st)";  // killed while writing
  const auto before = files_in(folder / "events");
  ASSERT_EQ(before.size(), 1u) << "earlier files are replaced";
  EXPECT_TRUE(before[0].filename().string().starts_with("events.out.tfevents."));
  const auto first = records(read_file(before[0]));
  ASSERT_EQ(first.size(), 1u + 6u);
  EXPECT_NE(first[0].find("brain.Event:2"), std::string::npos);
  EXPECT_NE(first[1].find("train/loss"), std::string::npos);
  EXPECT_NE(first[2].find("validate/loss"), std::string::npos);
  EXPECT_EQ(first[5].substr(9, 2), "\x10\x1e") << "step 10 of stage 2 is step 30";
  EXPECT_EQ(first[1].find("cell_text"), std::string::npos) << "an inactive loss";

  cut_log(folder / "train.jsonl", 1, 20);
  write(2, 5);
  const auto after = records(read_file(files_in(folder / "events").at(0)));
  ASSERT_EQ(after.size(), 1u + 6u);
  EXPECT_EQ(after[4], first[4]) << "what was kept is equal to the bit, its time too";
  EXPECT_EQ(after[5].substr(9, 2), "\x10\x19");
  EXPECT_EQ(files_in(folder / "events").size(), 1u);
}

TEST(EventFile, ThatCannotBeWrittenIsAResourceError) {
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  EXPECT_THROW(EventFile(folder / "file", folder / "train.jsonl"), ResourceError);
}

}  // namespace
}  // namespace lc
