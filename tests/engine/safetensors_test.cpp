// Each kind of damage has its file, written byte by byte here.
#include "engine/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;
using test::TemporaryFolder;

std::string length_prefix(std::uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes;
}

std::string file_of(const std::string& header, size_t data_bytes) {
  return length_prefix(header.size()) + header + std::string(data_bytes, '\1');
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}

// What the reader says about a file of these bytes.
std::string refusal(const std::string& bytes) {
  const TemporaryFolder folder;
  std::ofstream(folder / "m.safetensors", std::ios::binary) << bytes;
  const std::string message = message_of<ModelError>([&] { SafetensorsReader(folder / "m.safetensors"); });
  EXPECT_TRUE(holds(message, "m.safetensors"));
  return message;
}

std::string refusal(const std::string& header, size_t data_bytes) { return refusal(file_of(header, data_bytes)); }

template <class T>
TensorToStore stored(const std::string& name, std::vector<std::int64_t> shape, const std::vector<T>& values) {
  return {name, stored_type_of<T>, std::move(shape), std::as_bytes(std::span(values))};
}

TEST(Safetensors, WhatWasWrittenIsReadAgain) {
  const TemporaryFolder folder;
  const std::vector<float> weight{1.5f, -0.0f, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::infinity(), 3, 4};
  const std::vector<double> moment{0.1};
  const std::vector<std::int64_t> ids{-1, 25426, std::numeric_limits<std::int64_t>::min()};
  const std::vector<std::uint8_t> odd{1, 2, 255};
  write_safetensors(folder / "m", {stored("odd", {3}, odd), stored("layer.0.weight", {2, 3}, weight), stored("scalar", {}, moment),
                                   stored("ids", {3, 1}, ids), stored("empty", {0, 7}, std::vector<float>{})});
  const SafetensorsReader reader(folder / "m");
  EXPECT_EQ(reader.metadata(), (StoredMetadata{{"format", "pt"}}));
  ASSERT_EQ(reader.tensors().size(), 5u);
  EXPECT_EQ(reader.at("layer.0.weight").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_TRUE(reader.at("scalar").shape.empty());
  EXPECT_EQ(reader.at("empty").elements(), 0u);
  EXPECT_EQ(reader.values<double>("scalar"), moment);
  EXPECT_EQ(reader.values<std::int64_t>("ids"), ids);
  EXPECT_EQ(reader.values<std::uint8_t>("odd"), odd);
  std::vector<float> read(6);
  reader.read("layer.0.weight", read);
  EXPECT_EQ(std::memcmp(read.data(), weight.data(), 24), 0);
  EXPECT_EQ(reader.find("layer.1.weight"), nullptr);
}

TEST(Safetensors, TheBytesAreThoseOfTheReferenceImplementation) {
  const TemporaryFolder folder;
  write_safetensors(folder / "m", {stored("a", {1}, std::vector<std::uint8_t>{7}), stored("b\"é", {1}, std::vector<float>{1}),
                                   stored("c", {1}, std::vector<std::int64_t>{2})});
  const std::string header = R"({"__metadata__":{"format":"pt"},"c":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                             R"("b\"é":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
                             R"("a":{"dtype":"U8","shape":[1],"data_offsets":[12,13]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  using namespace std::string_literals;
  EXPECT_EQ(read_file(folder / "m"), length_prefix(padded.size()) + padded + "\2\0\0\0\0\0\0\0"s + "\0\0\x80\x3f"s + "\7"s);
}

TEST(Safetensors, TheDataBeginsAtAMultipleOfEight) {
  const TemporaryFolder folder;
  for (size_t length = 1; length <= 9; ++length) {
    write_safetensors(folder / "m", {stored(std::string(length, 'n'), {1}, std::vector<float>{1})});
    EXPECT_EQ(read_file(folder / "m").size() % 8, 4u);
  }
}

TEST(Safetensors, Bf16AndF16BecomeFloatExactly) {
  const TemporaryFolder folder;
  const std::vector<std::uint16_t> bf{0x3f80, 0xc040, 0x7f80, 0x0001},
      half{0x3c00, 0xc000, 0x7c00, 0x0001, 0x83ff, 0x7bff, 0x8000, 0x7e00, 0x3555};
  write_safetensors(folder / "m", {{"bf", StoredType::bf16, {4}, std::as_bytes(std::span(bf))},
                                   {"half", StoredType::f16, {9}, std::as_bytes(std::span(half))}});
  const SafetensorsReader reader(folder / "m");
  std::vector<float> a(4), b(9);
  reader.read("bf", a);
  EXPECT_EQ(a, (std::vector<float>{1, -3, INFINITY, 0x1p-133f}));
  reader.read("half", b);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(b[7]), 0x7fc00000u);  // NaN
  b[7] = 0;
  EXPECT_EQ(b, (std::vector<float>{1, -2, INFINITY, 0x1p-24f, -1023 * 0x1p-24f, 65504, -0.0f, 0, 0.333251953125f}));
  EXPECT_TRUE(std::signbit(b[6]));
}

TEST(Safetensors, ALongBf16TensorIsConvertedWhole) {
  const TemporaryFolder folder;
  std::vector<std::uint16_t> bits(150001);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i % 30000);
  write_safetensors(folder / "m", {{"t", StoredType::bf16, {150001}, std::as_bytes(std::span(bits))}});
  std::vector<float> values(bits.size());
  SafetensorsReader(folder / "m").read("t", values);
  for (size_t i = 0; i < bits.size(); ++i) ASSERT_EQ(values[i], to_float(bf16{bits[i]})) << i;
}

TEST(Safetensors, AskingForWhatIsNotThereNamesFileAndTensor) {
  const TemporaryFolder folder;
  write_safetensors(folder / "m.safetensors", {stored("w", {2}, std::vector<float>{1, 2}), stored("n", {1}, std::vector<std::int64_t>{1})});
  const SafetensorsReader reader(folder / "m.safetensors");
  std::vector<float> three(3);
  EXPECT_TRUE(holds(message_of<ModelError>([&] { reader.at("bias"); }), "m.safetensors:bias: there is no such tensor"));
  EXPECT_TRUE(holds(message_of<ModelError>([&] { reader.read("w", three); }), "m.safetensors:w: wanted 3 numbers, found shape [2]"));
  EXPECT_TRUE(holds(message_of<ModelError>([&] { reader.read("n", three); }), ":n: wanted F32, found I64"));
  EXPECT_TRUE(holds(message_of<ModelError>([&] { reader.values<double>("w"); }), ":w: wanted F64, found F32"));
  EXPECT_TRUE(holds(message_of<ModelError>([&] { SafetensorsReader(folder / "absent"); }), "cannot open"));
  EXPECT_TRUE(holds(message_of<ModelError>([&] { SafetensorsReader(folder.path()); }), "is no file"));
}

TEST(Safetensors, WritingTwoEqualNamesOrAWrongSizeIsOurBug) {
  const TemporaryFolder folder;
  const std::vector<float> one{1};
  EXPECT_TRUE(holds(message_of<ShapeError>([&] {
                      write_safetensors(folder / "m", {stored("a", {1}, one), stored("a", {1}, one)});
                    }),
                    "two tensors"));
  EXPECT_TRUE(
      holds(message_of<ShapeError>([&] { write_safetensors(folder / "m", {stored("a", {2}, one)}); }), "a has 4 bytes for F32 [2]"));
  EXPECT_FALSE(std::filesystem::exists(folder / "m"));
}

TEST(DamagedSafetensors, HeaderLength) {
  EXPECT_TRUE(holds(refusal(""), "0 bytes, too few"));
  EXPECT_TRUE(holds(refusal("1234567"), "7 bytes, too few"));
  EXPECT_TRUE(holds(refusal(length_prefix(0)), "does not begin with '{'"));
  EXPECT_TRUE(holds(refusal(length_prefix(3) + "{}"), "a header of 3 bytes in a file of 10"));
  EXPECT_TRUE(holds(refusal(length_prefix(std::uint64_t{1} << 63) + "{}"), "at most 100000000"));
  EXPECT_TRUE(holds(refusal(length_prefix(~std::uint64_t{0}) + "{}"), "at most 100000000"));
}

TEST(DamagedSafetensors, HeaderThatIsNoJsonObject) {
  EXPECT_TRUE(holds(refusal(" {}", 0), "does not begin with '{'"));
  EXPECT_TRUE(holds(refusal("[]", 0), "does not begin with '{'"));
  EXPECT_TRUE(holds(refusal("{\"a\":", 0), "no valid JSON at its byte"));
  EXPECT_TRUE(holds(refusal("{}{}", 0), "no valid JSON at its byte 3"));
  EXPECT_TRUE(holds(refusal("{\"\xff\xfe\":{}}", 0), "no valid JSON"));  // not UTF-8
  EXPECT_TRUE(holds(refusal("{\"a\":" + std::string(1000000, '['), 0), "an array where it does not belong"));
  EXPECT_TRUE(holds(refusal("{\"a\":{\"dtype\":" + std::string(1000000, '{'), 0), "an object where it does not belong (field 'dtype')"));
}

TEST(DamagedSafetensors, FieldsOfAnotherKind) {
  EXPECT_TRUE(holds(refusal(R"({"a":3})", 0), "m.safetensors:a: a number where it does not belong"));
  EXPECT_TRUE(holds(refusal(R"({"a":null})", 0), "null where"));
  EXPECT_TRUE(holds(refusal(R"({"a":"x"})", 0), "a string where"));
  EXPECT_TRUE(holds(refusal(R"({"__metadata__":{"a":1}})", 0), "a number where"));
  EXPECT_TRUE(holds(refusal(R"({"__metadata__":{"a":{}}})", 0), "an object where"));
  EXPECT_TRUE(holds(refusal(R"({"__metadata__":[]})", 0), "an array where"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"dtype":["F32"]}})", 0), "an array where it does not belong (field 'dtype')"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"shape":"3"}})", 0), "a string where it does not belong (field 'shape')"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"shape":[[1]]}})", 0), "an array where"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"shape":[-1]}})", 0), "the number -1 where"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"shape":[1.0]}})", 0), "the number 1.0 where"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"shape":[true]}})", 0), "true or false where"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"shape":[18446744073709551615]}})", 0), "the number 18446744073709551615 where"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"shape":[99999999999999999999]}})", 0), "the number 99999999999999999999 where"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"size":1}})", 0), "unknown field 'size'"));
}

TEST(DamagedSafetensors, MissingFields) {
  EXPECT_TRUE(holds(refusal(R"({"a":{"shape":[0],"data_offsets":[0,0]}})", 0), ":a: the field 'dtype' is missing"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"dtype":"F32","data_offsets":[0,0]}})", 0), "the field 'shape' is missing"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"dtype":"F32","shape":[0]}})", 0), "the field 'data_offsets' is missing"));
}

TEST(DamagedSafetensors, UnknownTypes) {
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F33", "[1]", "[0,4]") + "}", 4), "unknown dtype 'F33'"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "f32", "[1]", "[0,4]") + "}", 4), "unknown dtype 'f32'"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "", "[1]", "[0,4]") + "}", 4), "unknown dtype ''"));
}

TEST(DamagedSafetensors, Offsets) {
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F32", "[1]", "[0]") + "}", 4), "wanted two data_offsets, found 1"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F32", "[1]", "[0,4,8]") + "}", 4), "more than two"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F32", "[1]", "[4,0]") + "}", 4), "[4, 0] run backwards"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F32", "[2]", "[0,8]") + "}", 7), "ends at byte 8 of the data, but the file holds 7"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "U8", "[4]", "[9223372036854775803,9223372036854775807]") + "}", 4), "but the file holds 4"));
}

TEST(DamagedSafetensors, OverlapsGapsAndTails) {
  const std::string a = tensor("a", "F32", "[2]", "[0,8]");
  EXPECT_TRUE(holds(refusal("{" + a + "," + tensor("b", "F32", "[2]", "[4,12]") + "}", 12), ":b: overlaps the tensor before it"));
  EXPECT_TRUE(holds(refusal("{" + a + "," + tensor("b", "F32", "[2]", "[0,8]") + "}", 8), "overlaps"));
  EXPECT_TRUE(holds(refusal("{" + a + "," + tensor("b", "F32", "[1]", "[12,16]") + "}", 16), ":b: a gap of 4 bytes lies before it"));
  EXPECT_TRUE(holds(refusal("{" + tensor("b", "F32", "[1]", "[4,8]") + "}", 8), ":b: a gap of 4 bytes"));
  EXPECT_TRUE(holds(refusal("{" + a + "}", 11), "3 bytes at the end belong to no tensor"));
  EXPECT_TRUE(holds(refusal("{}", 1), "1 bytes at the end"));
  EXPECT_TRUE(holds(refusal("{" + a + "," + tensor("b", "F32", "[0]", "[4,4]") + "}", 8), "overlaps"));
}

TEST(DamagedSafetensors, ShapesThatDoNotFitTheirBytes) {
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F32", "[3]", "[0,8]") + "}", 8), ":a: F32 [3] needs 12 bytes, data_offsets give 8"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F64", "[]", "[0,4]") + "}", 4), "F64 [] needs 8 bytes"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F32", "[4294967296,4294967296]", "[0,0]") + "}", 0), "too large to be true"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F32", "[4611686018427387904]", "[0,0]") + "}", 0), "too large to be true"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") + "}", 4), "more than 8 dimensions"));
}

TEST(DamagedSafetensors, Names) {
  const std::string a = tensor("a", "F32", "[1]", "[0,4]");
  EXPECT_TRUE(holds(refusal("{" + a + "," + a + "}", 4), ":a: the name occurs twice"));
  EXPECT_TRUE(holds(refusal("{" + a + "," + tensor("\\u0061", "F32", "[1]", "[4,8]") + "}", 8), ":a: the name occurs twice"));
  EXPECT_TRUE(holds(refusal(R"({"a":{"dtype":"F32","dtype":"F32"}})", 0), "the field 'dtype' occurs twice"));
  EXPECT_TRUE(holds(refusal(R"({"__metadata__":{"k":"1","k":"2"}})", 0), "the field 'k' occurs twice"));
  EXPECT_TRUE(holds(refusal(R"({"__metadata__":{},"__metadata__":{}})", 0), "the name occurs twice"));
  EXPECT_TRUE(holds(refusal("{" + tensor("", "F32", "[1]", "[0,4]") + "}", 4), "no name"));
  EXPECT_TRUE(holds(refusal("{" + tensor("a\\u0000b", "F32", "[1]", "[0,4]") + "}", 4), ":a?b: the name holds a control character"));
  EXPECT_TRUE(holds(refusal("{" + tensor("../../etc/passwd", "F32", "[1]", "[0,4]") + "}", 4), "climbs out"));
  EXPECT_TRUE(holds(refusal("{" + tensor(std::string(513, 'x'), "F32", "[1]", "[0,4]") + "}", 4), "longer than 512"));
}

TEST(DamagedSafetensors, TooManyTensors) {
  std::string header = "{";
  for (int i = 0; i <= 100000; ++i) header += fmt::format("{}{}", i == 0 ? "" : ",", tensor(std::to_string(i), "F32", "[0]", "[0,0]"));
  EXPECT_TRUE(holds(refusal(header + "}", 0), "more than 100000 tensors"));
}

TEST(DamagedSafetensors, EveryTruncationIsRefused) {
  const TemporaryFolder folder;
  write_safetensors(folder / "m", {stored("w", {3}, std::vector<float>{1, 2, 3}), stored("n", {1}, std::vector<std::int64_t>{1})});
  const std::string whole = read_file(folder / "m");
  for (size_t length = 0; length < whole.size(); ++length) refusal(whole.substr(0, length));
}

TEST(DamagedSafetensors, AFileThatShrinksWhileItIsReadIsAnError) {
  const TemporaryFolder folder;
  write_safetensors(folder / "m", {stored("w", {2}, std::vector<float>{1, 2})});
  const SafetensorsReader reader(folder / "m");
  std::filesystem::resize_file(folder / "m", 12);
  std::vector<float> values(2);
  EXPECT_TRUE(holds(message_of<ModelError>([&] { reader.read("w", values); }), "m:w: the file became shorter"));
}

}  // namespace
}  // namespace lc
