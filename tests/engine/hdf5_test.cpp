#include "engine/hdf5.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;
using test::TemporaryFolder;

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

template <class T>
void round_trip(Hdf5 file, const std::string& name, const std::vector<T>& values) {
  file.write<T>(name, values);
  EXPECT_EQ(file.at(name).read<T>(), values) << name;
}

TEST(Hdf5, NumbersOfEveryTypeComeBackAsTheyWere) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  round_trip<float>(file, "f32", {0.1f, -3.5f, INFINITY});
  round_trip<double>(file, "f64", {0.1, -1e300});
  round_trip<std::int8_t>(file, "i8", {-128, 127});
  round_trip<std::uint8_t>(file, "u8", {0, 255});
  round_trip<std::int16_t>(file, "i16", {-32768, 32767});
  round_trip<std::uint16_t>(file, "u16", {0, 65535});
  round_trip<std::int32_t>(file, "i32", {-2147483647, 2147483647});
  round_trip<std::uint32_t>(file, "u32", {0, 4294967295u});
  round_trip<std::int64_t>(file, "i64", {-(std::int64_t{1} << 62), std::int64_t{1} << 62});
  round_trip<std::uint64_t>(file, "u64", {0, ~std::uint64_t{0}});
  round_trip<H5Bool>(file, "bool", {H5Bool::yes, H5Bool::no});
  EXPECT_EQ(file.at("bool").kind(), H5Kind::boolean);
  EXPECT_EQ(file.at("bool").read<float>(), (std::vector<float>{1, 0}));
  EXPECT_EQ(file.at("i16").read<double>(), (std::vector<double>{-32768, 32767}));
}

TEST(Hdf5, RowsAreReadAndWrittenByRange) {
  const TemporaryFolder folder;
  for (const H5Storage& storage : {H5Storage{}, H5Storage{.gzip = 4}, H5Storage{.gzip = 0, .chunk = {3, 2}}}) {
    Hdf5 file = Hdf5::create(folder / "a.h5");
    const Hdf5 table = file.allocate<std::int32_t>("in/a/group", {33, 5}, storage);
    std::vector<std::int32_t> all(33 * 5);
    std::iota(all.begin(), all.end(), 0);
    for (std::uint64_t row = 0; row < 33; row += 11) table.write_rows<std::int32_t>(row, std::span(all).subspan(row * 5, 55));
    file.close();
    const Hdf5 back = Hdf5::open(folder / "a.h5").at("in/a/group");
    EXPECT_EQ(back.shape(), (Hdf5::Shape{33, 5}));
    EXPECT_EQ(back.read<std::int32_t>(), all);
    EXPECT_EQ(back.read_rows<std::int64_t>(31, 33), (std::vector<std::int64_t>{155, 156, 157, 158, 159, 160, 161, 162, 163, 164}));
    EXPECT_TRUE(back.read_rows<float>(7, 7).empty());
    EXPECT_TRUE(holds(message_of<DataError>([&] { back.read_rows<float>(30, 34); }), "/in/a/group: wanted rows 30 to 34, it has 33"));
  }
}

TEST(Hdf5, ContiguousDataLieInTheFileAsTheyLieInMemory) {
  const TemporaryFolder folder;
  Hdf5 file = Hdf5::create(folder / "a.h5");
  const Hdf5 tokens = file.allocate<std::uint16_t>("tokens", {3});
  tokens.write_rows<std::uint16_t>(1, std::vector<std::uint16_t>{0x4241, 0x4443});
  const auto offset = tokens.contiguous_offset();
  EXPECT_FALSE(file.write<float>("packed", std::vector<float>(99, 1.0f), {.gzip = 1}).contiguous_offset().has_value());
  file.close();
  ASSERT_TRUE(offset.has_value());
  EXPECT_EQ(bytes_of(folder / "a.h5").substr(*offset + 2, 4), "ABCD");
}

TEST(Hdf5, RowsAreAppendedToWhatGrows) {
  const TemporaryFolder folder;
  Hdf5 file = Hdf5::create(folder / "a.h5");
  const Hdf5 tokens = file.allocate<std::uint16_t>("tokens", {0}, {.gzip = 0, .chunk = {4}, .grows = true});
  const Hdf5 names = file.write_strings("names", std::vector<std::string>{}, {.gzip = 1, .chunk = {}, .grows = true});
  for (std::uint16_t i = 0; i < 7; ++i) {
    tokens.append_rows<std::uint16_t>(std::vector<std::uint16_t>(i, i));
    names.append_strings(std::vector<std::string>{"n" + std::to_string(i)});
  }
  EXPECT_EQ(tokens.rows(), 21u);
  EXPECT_EQ(tokens.read_rows<int>(14, 17), (std::vector<int>{5, 6, 6}));
  EXPECT_EQ(names.read_strings(5, 7), (std::vector<std::string>{"n5", "n6"}));
}

TEST(Hdf5, TextIsUtf8OfAnyLength) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  const std::vector<std::string> texts{"", "ä", std::string(70000, 'x'), "µ-cell"};
  file.write_strings("plain", texts);
  file.write_strings("packed", texts, {.gzip = 4});
  file.write_string("one", "grüße");
  EXPECT_EQ(file.at("plain").read_strings(), texts);
  EXPECT_EQ(file.at("packed").read_strings(1, 2), std::vector<std::string>{"ä"});
  EXPECT_EQ(file.at("one").read_strings(), std::vector<std::string>{"grüße"});
  EXPECT_TRUE(file.at("one").shape().empty());
  EXPECT_TRUE(holds(message_of<DataError>([&] { file.at("plain").read<float>(); }), ":/plain: wanted numbers, found text"));
}

TEST(Hdf5, AttributesKeepTheirKind) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  const Hdf5 group = file.group("g/h");
  group.set("text", "wörter");
  group.set("number", std::int64_t{-7});
  group.set("flag", H5Bool::yes);
  group.set("list", std::vector<std::string>{"a", "ö"});
  group.set("shape", std::vector<std::int64_t>{3, 4});
  group.set("none", std::vector<std::string>{});
  group.set("text", "twice");
  EXPECT_EQ(group.text("text"), "twice");
  EXPECT_EQ(group.integer("number"), -7);
  EXPECT_EQ(group.integer("flag"), 1);
  EXPECT_EQ(group.texts("list"), (std::vector<std::string>{"a", "ö"}));
  EXPECT_EQ(group.integers("shape"), (std::vector<std::int64_t>{3, 4}));
  EXPECT_TRUE(group.texts("none").empty());
  EXPECT_EQ(group.text_or("number", "other"), "other");
  EXPECT_EQ(group.text_or("absent", "other"), "other");
  EXPECT_TRUE(holds(message_of<DataError>([&] { group.integer("absent"); }), ":/g/h: has no readable attribute 'absent'"));
}

TEST(Hdf5, ObjectsAreFoundCopiedAndRemoved) {
  const TemporaryFolder folder;
  const Hdf5 one = Hdf5::create(folder / "one.h5");
  one.write<float>("a/values", std::vector<float>{1, 2}).set("unit", "m");
  one.at("a").set_reference("best", one.at("a/values"));
  EXPECT_EQ(one.at("a").referenced("best").read<float>(), (std::vector<float>{1, 2}));
  const Hdf5 two = Hdf5::create(folder / "two.h5");
  two.copy_from(one.at("a"), "deep/b");
  EXPECT_EQ(two.at("deep/b/values").text("unit"), "m");
  EXPECT_EQ(two.at("deep").children(), std::vector<std::string>{"b"});
  EXPECT_TRUE(two.has_group("deep/b"));
  EXPECT_FALSE(two.has_group("deep/b/values"));
  EXPECT_FALSE(two.has("deep/b/values/more"));
  two.remove("deep/b");
  two.remove("deep/b");
  EXPECT_FALSE(two.has("deep/b"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { two.at("deep/b"); }), "two.h5:/deep/b: not in the file"));
}

TEST(Hdf5, ChosenRowsAreCopiedWithTheirType) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  std::vector<std::uint16_t> numbers(3 * 1000);
  std::iota(numbers.begin(), numbers.end(), std::uint16_t{0});
  const Hdf5 table = file.write<std::uint16_t>("table", numbers, {1000, 3}, {.gzip = 2, .chunk = {7, 3}});
  std::vector<std::string> names;
  for (int i = 0; i < 1000; ++i) names.push_back("name " + std::to_string(i));
  const Hdf5 texts = file.write_strings("texts", names);
  const std::vector<H5Range> ranges{{0, 2}, {2, 2}, {500, 501}, {998, 1000}};
  const Hdf5 few = file.allocate_like(table, "few", 6), few_texts = file.allocate_like(texts, "few_texts", 5);
  few.copy_rows(table, ranges, 1);
  few_texts.copy_rows(texts, ranges, 0);
  EXPECT_EQ(few.item_bytes(), 2u);
  EXPECT_EQ(few.read_rows<int>(1, 6), (std::vector<int>{0, 1, 2, 3, 4, 5, 1500, 1501, 1502, 2994, 2995, 2996, 2997, 2998, 2999}));
  EXPECT_EQ(few_texts.read_strings(), (std::vector<std::string>{"name 0", "name 1", "name 500", "name 998", "name 999"}));
}

TEST(Hdf5, ARangeLargerThanTheBufferIsCopiedInPieces) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  std::vector<std::int64_t> numbers(5'000'000);  // 40 MB
  std::iota(numbers.begin(), numbers.end(), 0);
  const Hdf5 from = file.write<std::int64_t>("from", numbers);
  const Hdf5 to = file.allocate_like(from, "to", numbers.size() - 3);
  to.copy_rows(from, std::vector<H5Range>{{1, 2}, {4, numbers.size()}}, 0);
  EXPECT_EQ(to.read_rows<std::int64_t>(0, 3), (std::vector<std::int64_t>{1, 4, 5}));
  EXPECT_EQ(to.read_rows<std::int64_t>(4'999'990, 4'999'997).back(), 4'999'999);
  EXPECT_EQ(to.read_rows<std::int64_t>(3'000'000, 3'000'001).front(), 3'000'003);
}

TEST(Hdf5, FilesThatAreNoneAreNamedWithTheReason) {
  const TemporaryFolder folder;
  Hdf5 file = Hdf5::create(folder / "whole.h5");
  file.write<float>("values", std::vector<float>(5000, 1.0f));
  file.close();
  const std::string whole = bytes_of(folder / "whole.h5");
  for (size_t length : {whole.size() - 1, whole.size() / 2, size_t{600}}) {
    std::ofstream(folder / "short.h5", std::ios::binary) << whole.substr(0, length);
    EXPECT_TRUE(holds(message_of<DataError>([&] { Hdf5::open(folder / "short.h5"); }), "short.h5: the file is cut short")) << length;
  }
  std::ofstream(folder / "text.h5") << "no HDF5";
  std::ofstream(folder / "empty.h5") << "";
  EXPECT_TRUE(holds(message_of<DataError>([&] { Hdf5::open(folder / "text.h5"); }), "text.h5: not an HDF5 file"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { Hdf5::open(folder / "empty.h5"); }), "empty.h5: the file is empty"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { Hdf5::open(folder / "absent.h5"); }), "absent.h5: no such file"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { Hdf5::open(folder.path()); }), "a folder"));
  EXPECT_TRUE(holds(message_of<ResourceError>([&] { Hdf5::create(folder / "nowhere/a.h5"); }), "nowhere/a.h5: cannot be created"));
  EXPECT_TRUE(holds(message_of<ResourceError>([&] { Hdf5::open(folder / "whole.h5").write_scalar("more", 1.0f); }),
                    "whole.h5: the dataset more cannot be written"));
}

TEST(Hdf5, DamagedContentIsADataError) {
  const TemporaryFolder folder;
  Hdf5 file = Hdf5::create(folder / "a.h5");
  std::vector<std::int32_t> values(100'000);
  std::iota(values.begin(), values.end(), 0);
  file.write<std::int32_t>("packed", values, {.gzip = 6});
  file.close();
  std::string bytes = bytes_of(folder / "a.h5");
  for (size_t i = bytes.size() / 2; i < bytes.size() / 2 + 2000; ++i) bytes[i] = '\x55';
  std::ofstream(folder / "a.h5", std::ios::binary) << bytes;
  EXPECT_TRUE(holds(message_of<DataError>([&] { Hdf5::open(folder / "a.h5").at("packed").read<float>(); }),
                    "a.h5:/packed: a chunk of it cannot be decompressed"));
}

}  // namespace
}  // namespace lc
