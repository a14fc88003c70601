// Which lane holds what, against literal tables (PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix"): twins and kernels by one
// hand could be wrong together.
#include "tests/cuda/lane_maps.h"

#include <gtest/gtest.h>

#include "engine/tensor.h"
#include "kernels/cuda/device.h"

namespace lc::test {
namespace {

const Queue kDevice{Device::cuda};
constexpr std::uint32_t kOne = 0x3f80;  // 1 in bf16

struct Out {
  std::vector<std::int32_t> plain, transposed;
  std::vector<float> c;
};
Out run(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  const Tensor left = Tensor::from(a, kDevice), right = Tensor::from(b, kDevice), plain = Tensor::zeros({128}, DType::i32, kDevice),
               transposed = Tensor::zeros({128}, DType::i32, kDevice), c = Tensor::zeros({128}, DType::f32, kDevice);
  const auto words = [](const Tensor& t) { return static_cast<std::uint32_t*>(t.raw()); };
  run_lane_maps(kDevice, {words(left), words(right), words(plain), words(transposed), c.data<float>()});
  return {plain.to_host<std::int32_t>(), transposed.to_host<std::int32_t>(), c.to_host<float>()};
}

class LaneMap : public testing::Test {
  void SetUp() override {
    if (const std::string reason = cuda::why_not(kDevice); !reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_F(LaneMap, LdmatrixGivesLaneFourRPlusTTheElements2TAnd2TPlus1OfRowR) {
  const Out o = run(std::vector<std::int32_t>(128), std::vector<std::int32_t>(64));
  // (lane, matrix) → element; an element is row · 8 + column, a matrix is 64 elements
  struct Literal {
    int lane, matrix, low, high;
  };
  for (const Literal& l : std::initializer_list<Literal>{
           {0, 0, 0, 1}, {1, 0, 2, 3}, {3, 0, 6, 7}, {4, 0, 8, 9}, {31, 0, 62, 63}, {0, 1, 64, 65}, {5, 2, 138, 139}, {31, 3, 254, 255}}) {
    EXPECT_EQ(o.plain[static_cast<std::size_t>(l.lane * 4 + l.matrix)], l.low | l.high << 16) << l.lane << ", " << l.matrix;
  }
  for (const Literal& l : std::initializer_list<Literal>{{0, 0, 0, 8},
                                                         {1, 0, 16, 24},
                                                         {3, 0, 48, 56},
                                                         {4, 0, 1, 9},
                                                         {31, 0, 55, 63},
                                                         {0, 1, 64, 72},
                                                         {5, 2, 145, 153},
                                                         {31, 3, 247, 255}}) {
    EXPECT_EQ(o.transposed[static_cast<std::size_t>(l.lane * 4 + l.matrix)], l.low | l.high << 16) << l.lane << ", " << l.matrix;
  }
}

// a[row][k] = 1 alone and b[k][column] = 1 alone: c[row][column] = 1 alone.
struct Place {
  int lane, word, half;
};
TEST_F(LaneMap, MmaTakesAndGivesElementsWhereTheTablesSay) {
  struct Literal {
    int row, k, column;
    Place a, b;
    int c_lane, c_word;
  };
  const Literal table[] = {
      {0, 0, 0, {0, 0, 0}, {0, 0, 0}, 0, 0},      {0, 1, 1, {0, 0, 1}, {4, 0, 1}, 0, 1},     {1, 2, 2, {5, 0, 0}, {9, 0, 0}, 5, 0},
      {7, 7, 7, {31, 0, 1}, {31, 0, 1}, 31, 1},   {8, 0, 3, {0, 1, 0}, {12, 0, 0}, 1, 3},    {15, 6, 0, {31, 1, 0}, {3, 0, 0}, 28, 2},
      {3, 8, 5, {12, 2, 0}, {20, 1, 0}, 14, 1},   {2, 15, 6, {11, 2, 1}, {27, 1, 1}, 11, 0}, {9, 9, 4, {4, 3, 1}, {16, 1, 1}, 6, 2},
      {15, 15, 7, {31, 3, 1}, {31, 1, 1}, 31, 3},
  };
  for (const Literal& l : table) {
    std::vector<std::int32_t> a(128), b(64);
    a[static_cast<std::size_t>(l.a.lane * 4 + l.a.word)] = static_cast<std::int32_t>(kOne << (16 * l.a.half));
    b[static_cast<std::size_t>(l.b.lane * 2 + l.b.word)] = static_cast<std::int32_t>(kOne << (16 * l.b.half));
    std::vector<float> wanted(128);
    wanted[static_cast<std::size_t>(l.c_lane * 4 + l.c_word)] = 1;
    EXPECT_EQ(run(a, b).c, wanted) << "row " << l.row << ", k " << l.k << ", column " << l.column;
  }
}

}  // namespace
}  // namespace lc::test
