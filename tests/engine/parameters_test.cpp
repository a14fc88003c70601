#include "engine/parameters.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/errors.h"
#include "engine/nn.h"
#include "engine/tape.h"

namespace lc::test {
namespace {

struct Small {
  Parameters arena;
  Linear qkv{Scope{&arena, "layer.attention.self"}, std::vector<std::string>{"query", "key", "value"}, 33, 7, 0.5f};
  Embedding words{Scope{&arena, "words"}, 65, 33, 0.02f};
  LayerNorm norm{Scope{&arena, "norm"}, 33, 1e-12f};
};

TEST(parameters, stacks_named_tensors_into_one) {
  Small s;
  s.arena.allocate(DType::f32);
  s.arena.initialize(3);
  const Tensor& all = s.qkv.weight;
  EXPECT_EQ(all.shape(), (Shape{21, 33}));
  const float* key = s.arena.master(*s.arena.find("layer.attention.self.key.weight"));
  EXPECT_EQ(key, all.data<float>() + 7 * 33);
}

TEST(parameters, slices_begin_at_256_bytes_and_vocabulary_rows_are_padded_with_zeros) {
  Small s;
  s.arena.allocate(DType::f32);
  s.arena.initialize(3);
  EXPECT_EQ((*s.words.weight).shape(), (Shape{128, 33}));
  EXPECT_EQ(s.arena.find("words.weight")->shape, (Shape{65, 33}));
  EXPECT_EQ(s.arena.find("words.weight")->offset % Parameters::kSlice, 0);
  const float* row = (*s.words.weight).data<float>() + 65 * 33;
  for (int i = 0; i < 63 * 33; ++i) ASSERT_EQ(row[i], 0);
}

TEST(parameters, initial_values_have_their_deviation_and_depend_on_seed_and_name_alone) {
  Small a, b;
  b.arena.declare({"another"}, Shape{5}, ParameterKind::vector, {1, 1});
  a.arena.allocate(DType::f32), b.arena.allocate(DType::f32);
  a.arena.initialize(3), b.arena.initialize(3);
  const NamedParameter& w = *a.arena.find("words.weight");
  double sum = 0;
  for (int i = 0; i < 65 * 33; ++i) {
    sum += std::pow(a.arena.master(w)[i], 2);
    ASSERT_EQ(a.arena.master(w)[i], b.arena.master(*b.arena.find("words.weight"))[i]);
  }
  EXPECT_NEAR(std::sqrt(sum / (65 * 33)), 0.02, 0.002);
  EXPECT_EQ(a.arena.master(*a.arena.find("norm.weight"))[32], 1);
}

TEST(parameters, storage_copy_is_rounded_for_matrices_and_float_for_vectors) {
  Small s;
  s.arena.allocate(DType::bf16);
  s.arena.initialize(3);
  EXPECT_EQ((*s.words.weight).dtype(), DType::bf16);
  EXPECT_EQ((*s.norm.weight).dtype(), DType::f32);
  EXPECT_EQ((*s.words.weight).data<bf16>()[40].bits, from_float<bf16>(s.arena.master(*s.arena.find("words.weight"))[40]).bits);
}

TEST(parameters, freezing_names_idle_globs_and_takes_leaves_off_the_tape) {
  Small s;
  s.arena.allocate(DType::f32);
  EXPECT_EQ(s.arena.freeze({"words.*", "nothing*", "*query.weight"}), std::vector<std::string>{"nothing*"});
  Tape tape;
  s.arena.attach(&tape);
  EXPECT_EQ((*s.words.weight).tape(), nullptr);
  EXPECT_EQ((*s.qkv.weight).tape(), &tape);  // key and value still learn
  s.arena.attach(nullptr);
  std::int64_t frozen = 0, decaying = 0, all = 0;
  for (const kernels::Segment& g : s.arena.segments(0.5f)) {
    EXPECT_EQ(g.offset, all);
    all += g.length, frozen += g.frozen ? g.length : 0, decaying += g.decay > 0 ? g.length : 0;
  }
  EXPECT_EQ(all, s.arena.size());
  EXPECT_GE(frozen, 65 * 33 + 7 * 33);
  EXPECT_LT(decaying, all);
}

TEST(parameters, a_name_declared_twice_is_refused) {
  Parameters arena;
  arena.declare({"w"}, Shape{1}, ParameterKind::vector, {});
  EXPECT_THROW(arena.declare({"w"}, Shape{1}, ParameterKind::vector, {}), ShapeError);
}

}  // namespace
}  // namespace lc::test
