// Cells of many corpora under one numbering.
#include "train/dataset.h"

#include <gtest/gtest.h>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "train/order.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;
using test::TemporaryFolder;

constexpr std::int64_t kCells = 65;

// Cells [begin, end) of a corpus of 65, with the label of each by its number, in the order in which `texts` has them.
std::filesystem::path write_cells(const std::filesystem::path& path, std::int64_t begin, std::int64_t end, const std::string& texts,
                                  int genes = 300) {
  std::vector<Gene> all;
  for (int i = 0; i < genes; ++i) all.push_back({"ENSG" + std::to_string(1000000 + i), "G" + std::to_string(i), 1.0});
  CorpusSetup setup{GeneVocabulary(all), Texts::parse(texts, "texts"), {"donor"}};
  const Texts labels = setup.texts;
  CorpusWriter writer(path, std::move(setup));
  for (std::int64_t c = begin; c < end; ++c) {
    std::vector<std::int32_t> tokens;
    for (std::int64_t i = 0; i < (c * 37) % 129; ++i) tokens.push_back(static_cast<std::int32_t>(2 + (c + i) % 300));
    const std::string label(1, static_cast<char>('A' + c % 3)), donor[] = {"donor " + std::to_string(c % 5)};
    writer.append({"cell " + std::to_string(c), tokens, static_cast<std::int32_t>(labels.index_of(label)), donor});
  }
  writer.finish({}, {}, {});
  return path;
}

const char* const kThree = R"({"A": "the first", "B": ["the second", "number two"], "C": "the third"})";

struct Sample {
  Sequences cells;
  std::string label, text, donor;
  bool operator==(const Sample& o) const {
    return cells.ids == o.cells.ids && cells.packing.keys == o.cells.packing.keys && label == o.label && text == o.text && donor == o.donor;
  }
};

std::vector<Sample> samples_of(const Dataset& data) {
  std::vector<Sample> all;
  data.for_column("donor", [&](std::int64_t cell, const std::string& donor) {
    const std::int32_t group = data.group(cell);
    const TextChoice choice = data.text(cell, chance_of_step(1, 2, 3));
    all.push_back({data.sequences(std::span(&cell, 1), 64, Pass::view_a), group < 0 ? "" : data.groups()[static_cast<std::size_t>(group)],
                   choice.text < 0 ? "" : data.texts()[static_cast<std::size_t>(choice.text)], donor});
  });
  return all;
}

std::vector<Samples> batches_of(const Dataset& data) {
  SampleOrder order(CellSet(data.cells(), [](std::int64_t c) { return c % 7 != 2; }),
                    {3, 1, 6, [&](std::int64_t c) { return data.length(c, 64); }});
  std::vector<Samples> batches;
  for (std::int64_t step = 0; step < 3 * order.batches_per_epoch(); ++step) batches.push_back(order.batch(step));
  return batches;
}

TEST(Dataset, ManyCorporaGiveTheSamplesOfOneLongOne) {
  const TemporaryFolder folder;
  const Dataset whole({write_cells(folder / "whole.h5", 0, kCells, kThree)});
  std::filesystem::create_directory(folder / "many");
  std::vector<std::filesystem::path> files;
  for (const auto& [begin, end] : {std::pair{0, 33}, {33, 33}, {33, 34}, {34, 65}})
    files.push_back(write_cells(folder / "many" / (std::to_string(files.size()) + ".h5"), begin, end, kThree));
  const Dataset many(files), by_folder({folder / "many"});
  EXPECT_EQ(by_folder.corpora().size(), 4u);
  EXPECT_EQ(&many.corpora()[0].vocabulary(), &many.corpora()[3].vocabulary()) << "one vocabulary serves all";
  const std::vector<Sample> wanted = samples_of(whole);
  ASSERT_EQ(std::ssize(wanted), kCells);
  EXPECT_EQ(samples_of(many), wanted);
  EXPECT_EQ(samples_of(by_folder), wanted);
  EXPECT_EQ(batches_of(many), batches_of(whole));
}

TEST(Dataset, JoinsCorporaWhoseTextsDiffer) {
  const TemporaryFolder folder;
  const Dataset whole({write_cells(folder / "whole.h5", 0, kCells, kThree)});
  const char* const turned = R"({"C": "the third", "D": "never seen", "B": ["the second", "number two"]})";
  const Dataset two({write_cells(folder / "a.h5", 0, 2, R"({"B": ["the second", "number two"], "A": "the first"})"),
                     write_cells(folder / "b.h5", 2, 3, turned), write_cells(folder / "c.h5", 3, kCells, kThree)});
  EXPECT_EQ(two.groups(), (std::vector<std::string>{"B", "A", "C", "D"}));
  EXPECT_EQ(samples_of(two), samples_of(whole));
}

TEST(Dataset, CellsAcrossCorporaPackIntoOneBatch) {
  const TemporaryFolder folder;
  const Dataset data({write_cells(folder / "a.h5", 0, 33, kThree), write_cells(folder / "b.h5", 33, kCells, kThree)});
  const Samples cells = {64, 0, 32, 33};
  data.read_soon(cells);
  const Sequences packed = data.sequences(cells, 65, Pass::view_b);
  Sequences wanted;
  for (const std::int64_t c : cells) wanted.add(data.sequence(c, 65), sequence_key(Pass::view_b, static_cast<std::uint64_t>(c)));
  EXPECT_EQ(packed.ids, wanted.ids);
  EXPECT_EQ(packed.packing.lengths, wanted.packing.lengths);
  EXPECT_EQ(packed.packing.keys, wanted.packing.keys);
  EXPECT_EQ(packed.packing.lengths[1], 1) << "a cell without genes is <cls> alone";
}

TEST(Dataset, RefusesCorporaThatDoNotFitTogether) {
  const TemporaryFolder folder;
  const auto first = write_cells(folder / "first.h5", 0, 3, kThree);
  const auto refused = [&](const std::filesystem::path& second) { return message_of<DataError>([&] { Dataset({first, second}); }); };
  EXPECT_TRUE(holds(refused(write_cells(folder / "a.h5", 0, 1, R"({"A": "another first"})")), "a.h5: the texts of label 'A' differ"));
  EXPECT_TRUE(holds(refused(write_cells(folder / "b.h5", 0, 1, R"({"A": "the first", "D": "the third"})")),
                    "b.h5: label 'D' has a text that another label"));
  EXPECT_TRUE(holds(refused(write_cells(folder / "c.h5", 0, 3, kThree, 301)), "c.h5: its gene vocabulary differs from that of"));
  std::filesystem::create_directory(folder / "empty");
  EXPECT_TRUE(holds(refused(folder / "empty"), "empty: a folder without a corpus"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { Dataset({first}).for_column("sex", [](auto, auto&) {}); }), "first.h5: no obs/sex"));
}

}  // namespace
}  // namespace lc
