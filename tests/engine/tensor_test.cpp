#include "engine/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/errors.h"
#include "engine/memory.h"
#include "engine/packing.h"

namespace lc::test {
namespace {

TEST(tensor, copies_share_their_numbers_and_slices_keep_the_stride) {
  const std::vector<float> v = {1, 2, 3, 4, 5, 6};
  const Tensor x = Tensor::from(std::span<const float>(v), Shape{2, 3}), same = x, part = x.slice_columns(1, 2);
  same.data<float>()[1] = 20;
  EXPECT_EQ(part.to_host<float>(), (std::vector<float>{20, 3, 5, 6}));
  EXPECT_EQ(part.stride(), 3);
  EXPECT_EQ(x.slice_rows(1, 1).to_host<float>(), (std::vector<float>{4, 5, 6}));
}

TEST(tensor, refuses_the_wrong_type_an_absent_tensor_and_slices_outside) {
  const Tensor x = Tensor::zeros(Shape{2, 3}, DType::f32);
  EXPECT_THROW(x.data<bf16>(), ShapeError);
  EXPECT_THROW(Tensor().data<float>(), ShapeError);
  EXPECT_THROW(x.slice_columns(2, 2), ShapeError);
  EXPECT_THROW(x.slice_rows(3, 0), ShapeError);
  EXPECT_THROW((Shape{-1, 2}), ShapeError);
}

TEST(tensor, rounds_to_bf16_to_nearest_even_and_keeps_nan) {
  const std::vector<float> v = {1.00390625f, 1.01171875f, -3.5f, std::numeric_limits<float>::quiet_NaN(),
                                std::numeric_limits<float>::infinity()};
  const auto back = Tensor::from(std::span<const float>(v), Shape{1, 5}).to(DType::bf16).to(DType::f32).to_host<float>();
  EXPECT_EQ(back[0], 1.0f);
  EXPECT_EQ(back[1], 1.015625f);
  EXPECT_EQ(back[2], -3.5f);
  EXPECT_TRUE(std::isnan(back[3]));
  EXPECT_TRUE(std::isinf(back[4]));
}

TEST(memory, gives_a_block_back_to_its_class_and_counts_the_peak) {
  const Queue queue;
  const std::size_t before = memory_use(queue).in_use;
  const void* first = nullptr;
  {
    const Tensor x = Tensor::empty(Shape{1000}, DType::f32);
    first = x.raw();
    EXPECT_GE(memory_use(queue).in_use, before + 4000);
  }
  EXPECT_EQ(memory_use(queue).in_use, before);
  EXPECT_EQ(Tensor::empty(Shape{1000}, DType::f32).raw(), first);
  EXPECT_GE(memory_use(queue).peak, before + 4000);
}

TEST(memory, a_device_that_is_not_built_in_is_a_resource_error) {
  EXPECT_THROW(Tensor::empty(Shape{1}, DType::f32, {Device::cuda, 0, nullptr}), ResourceError);
}

TEST(packing, knows_offsets_keys_and_the_longest) {
  const PackingPtr p = Packing::make({{3, 0, 5}, {10, 11, 12}, {}});
  EXPECT_EQ(p->offsets(), (std::vector<std::int32_t>{0, 3, 3, 8}));
  EXPECT_EQ(p->longest(), 5);
  const kernels::PackingView v = p->view();
  EXPECT_EQ(v.sequence_of[3], 2);
  EXPECT_EQ(v.keys[2], 12u);
  EXPECT_EQ(v.kv_of, nullptr);
}

TEST(packing, refuses_keys_that_do_not_fit) {
  EXPECT_THROW(Packing::make({{3}, {}, {}}), ShapeError);
  EXPECT_THROW(Packing::make({{-1}, {1}, {}}), ShapeError);
  EXPECT_THROW(Packing::make({{1, 1}, {1, 2}, {0}}), ShapeError);
}

}  // namespace
}  // namespace lc::test
