#include <gtest/gtest.h>

#include <cmath>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "tests/tools/anndata_files.h"
#include "tools/anndata/frame.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;
using test::TemporaryFolder;
using Texts = std::vector<std::string>;
using Codes = std::vector<std::int32_t>;

class AnnDataFrame : public testing::Test {
 protected:
  TemporaryFolder folder_;
  Hdf5 file_ = Hdf5::create(folder_ / "a.h5ad");
  Hdf5 obs_ = write_frame(file_, "obs", Texts{"a", "b", "c", "ä"});

  Frame with(const std::string& column) {
    obs_.set("column-order", Texts{column});
    return Frame(file_.at("obs"));
  }
  void nullable(const std::string& name, const std::string& encoding) {
    obs_.group(name).set("encoding-type", encoding);
    obs_.write<H5Bool>(name + "/mask", std::vector<H5Bool>{H5Bool::no, H5Bool::yes, H5Bool::no, H5Bool::no});
  }
};

TEST_F(AnnDataFrame, TheIndexIsWhereTheAttributeSays) {
  EXPECT_EQ(Frame(obs_).index(), (Texts{"a", "b", "c", "ä"}));
  write_string_array(obs_, "barcode", Texts{"1", "2", "3", "4"});
  obs_.set("_index", "barcode");
  const Frame frame(obs_);
  EXPECT_EQ(frame.index(), (Texts{"1", "2", "3", "4"}));
  EXPECT_EQ(frame.rows(), 4u);
  EXPECT_TRUE(frame.columns().empty());
}

TEST_F(AnnDataFrame, AnIndexMayBeANullableStringGroup) {
  obs_.remove("_index");
  write_string_array(obs_, "_index/values", Texts{"a", "b", "c", "d"});
  obs_.write<H5Bool>("_index/mask", std::vector<H5Bool>(4, H5Bool::no));
  EXPECT_EQ(Frame(obs_).index(), (Texts{"a", "b", "c", "d"}));
}

TEST_F(AnnDataFrame, CategoricalsKeepTheOrderOfTheFile) {
  write_categorical(obs_, "type", {{1, -1, 0, 1}, {"z", "a", "unused"}, Ordered::yes});
  const Categorical type = with("type").categorical("type");
  EXPECT_EQ(type.categories, (Texts{"z", "a", "unused"}));
  EXPECT_EQ(type.codes, (Codes{1, -1, 0, 1}));
  EXPECT_EQ(type.ordered, Ordered::yes);
  EXPECT_EQ(type.label(0), "a");
  EXPECT_EQ(with("type").strings("type"), (Texts{"a", "", "z", "a"}));
}

TEST_F(AnnDataFrame, LegacyCategoricalsAreFoundThroughTheirReference) {
  const Hdf5 categories = obs_.write_strings("__categories/type", Texts{"z", "a"});
  categories.set("ordered", H5Bool::yes);
  obs_.write<std::int8_t>("type", std::vector<std::int8_t>{1, -1, 0, 1}).set_reference("categories", categories);
  obs_.set("encoding-version", "0.1.0");
  const Categorical type = with("type").categorical("type");
  EXPECT_EQ(type.categories, (Texts{"z", "a"}));
  EXPECT_EQ(type.codes, (Codes{1, -1, 0, 1}));
  EXPECT_EQ(type.ordered, Ordered::yes);
}

TEST_F(AnnDataFrame, WithoutAColumnOrderEveryMemberIsAColumn) {
  obs_.write<float>("x", std::vector<float>{1, 2, 3, 4});
  obs_.write_strings("__categories/type", Texts{"z"});
  const Hdf5 plain = file_.group("plain");
  write_string_array(plain, "_index", Texts{"a"});
  plain.write<float>("x", std::vector<float>{1});
  plain.write_strings("__categories/type", Texts{"z"});
  EXPECT_EQ(Frame(plain).columns(), Texts{"x"});
}

TEST_F(AnnDataFrame, OtherColumnsBecomeCategoriesOfTheirDistinctValues) {
  write_string_array(obs_, "text", Texts{"b", "a", "", "b"});
  obs_.write<std::int64_t>("whole", std::vector<std::int64_t>{10, 9, 10, -1});
  obs_.write<double>("real", std::vector<double>{2, 0.5, NAN, 2});
  obs_.write<H5Bool>("flag", std::vector<H5Bool>{H5Bool::yes, H5Bool::no, H5Bool::yes, H5Bool::yes});
  const Categorical text = with("text").categorical("text"), whole = with("whole").categorical("whole"),
                    real = with("real").categorical("real"), flag = with("flag").categorical("flag");
  EXPECT_EQ(text.categories, (Texts{"a", "b"}));
  EXPECT_EQ(text.codes, (Codes{1, 0, -1, 1}));
  EXPECT_EQ(whole.categories, (Texts{"-1", "9", "10"}));
  EXPECT_EQ(whole.codes, (Codes{2, 1, 2, 0}));
  EXPECT_EQ(real.categories, (Texts{"0.5", "2.0"}));
  EXPECT_EQ(real.codes, (Codes{1, 0, -1, 1}));
  EXPECT_EQ(flag.categories, (Texts{"False", "True"}));
}

TEST_F(AnnDataFrame, NullableColumnsMissWhereTheMaskSays) {
  nullable("number", "nullable-integer");
  obs_.write<std::int64_t>("number/values", std::vector<std::int64_t>{5, 1, 7, 5});
  nullable("text", "nullable-string-array");
  obs_.write_strings("text/values", Texts{"x", "gone", "y", "x"});
  const std::vector<double> numbers = with("number").numbers("number");
  EXPECT_EQ(numbers[0], 5);
  EXPECT_TRUE(std::isnan(numbers[1]));
  EXPECT_EQ(with("number").categorical("number").codes, (Codes{0, -1, 1, 0}));
  EXPECT_EQ(with("text").categorical("text").categories, (Texts{"x", "y"}));
  EXPECT_EQ(with("text").categorical("text").codes, (Codes{0, -1, 1, 0}));
}

TEST_F(AnnDataFrame, WhatIsWrongIsNamed) {
  write_categorical(obs_, "type", {{1, 0, 0, 1}, {"z", "a"}, Ordered::no});
  obs_.at("type/codes").write_rows<std::int8_t>(2, std::vector<std::int8_t>{2});
  obs_.write<float>("short", std::vector<float>{1, 2});
  write_string_array(obs_, "text", Texts{"b", "a", "", "b"});
  EXPECT_TRUE(
      holds(message_of<DataError>([&] { with("type").categorical("type"); }), "/obs/type/codes: row 2 has code 2, there are 2 categories"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { with("short").categorical("short"); }), "/obs/short: 2 entries, wanted 4"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { with("text").numbers("text"); }), "/obs/text: wanted numbers, found text"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { with("text").categorical("nope"); }), "/obs: no column 'nope'; it has: text"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { Frame(file_.write<float>("old", std::vector<float>{1})); }), "anndata 0.6 and older"));
}

TEST(Categoricals, OfTextsAreSortedAsPandasSortsThem) {
  const Categorical found = categorical_of({"b", "B", "", "a"});
  EXPECT_EQ(found.categories, (Texts{"B", "a", "b"}));
  EXPECT_EQ(found.codes, (Codes{2, 0, -1, 1}));
}

}  // namespace
}  // namespace lc
