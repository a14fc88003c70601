#include "engine/tape.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "engine/errors.h"
#include "engine/nn.h"
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

using Floats = std::vector<float>;

Tensor matrix(const Floats& v, std::int64_t rows) { return Tensor::from(std::span<const float>(v), Shape{rows, std::ssize(v) / rows}); }

TEST(tape, adds_the_contributions_of_all_uses) {
  Tape tape;
  const Tensor x = tape.watch(matrix({1, 2, 3}, 1));
  const Tensor y = add(add(x, x), x);
  tape.backward({{y, matrix({1, 10, 100}, 1)}});
  EXPECT_EQ(tape.gradient(x).to_host<float>(), (Floats{3, 30, 300}));
}

TEST(tape, column_slices_share_one_gradient_and_untouched_columns_get_zero) {
  Tape tape;
  const Tensor x = tape.watch(matrix({1, 2, 3, 4, 5, 6}, 2));
  const Tensor y = add(x.slice_columns(0, 1), x.slice_columns(2, 1));
  tape.backward({{y, matrix({7, 8}, 2)}});
  EXPECT_EQ(tape.gradient(x).to_host<float>(), (Floats{7, 0, 7, 8, 0, 8}));
}

TEST(tape, sums_more_than_two_bf16_contributions_in_float) {
  Tape tape;
  const Tensor x = tape.watch(matrix({1}, 1).to(DType::bf16));
  std::vector<Seed> seeds;
  for (int i = 0; i < 257; ++i) seeds.push_back({add(x, x.detached()), matrix({1}, 1)});
  tape.backward(seeds);
  EXPECT_EQ(tape.gradient(x).to(DType::f32).to_host<float>(), Floats{257});  // bf16 alone stops at 256
}

TEST(tape, gives_no_gradient_to_what_nothing_reaches) {
  Tape tape;
  const Tensor x = tape.watch(matrix({1}, 1)), y = tape.watch(matrix({2}, 1));
  tape.backward({{add(x, x), matrix({1}, 1)}});
  EXPECT_FALSE(tape.gradient(y));
}

TEST(tape, says_of_each_parameter_when_nothing_adds_to_its_gradient_any_more) {
  Tape tape;
  Parameters arena;
  const Linear first(Scope{&arena, "first"}, 3, 3, 1), second(Scope{&arena, "second"}, 3, 3, 1), third(Scope{&arena, "third"}, 3, 3, 1),
      unused(Scope{&arena, "unused"}, 3, 3, 1);
  arena.allocate(DType::f32);
  arena.initialize(1);
  arena.allocate_training();
  EXPECT_TRUE(arena.freeze({"third.bias"}).empty());
  arena.attach(&tape);
  const auto gradients = [&] { return std::vector<float>(arena.gradients().begin(), arena.gradients().end()); };
  std::vector<std::string> order;
  std::vector<std::vector<float>> then;
  tape.on_ready([&](const Leaf& parameter) { order.push_back(parameter.name), then.push_back(gradients()); });
  const Tensor h = second(first(matrix({1, 2, 3}, 1)));
  const Tensor y = tape.recompute({h}, {third.weight.leaf(), third.bias.leaf()}, [&](std::span<const Tensor> in) { return third(in[0]); });
  const Tensor nowhere = third(h);
  const Tensor again = first(y);
  EXPECT_EQ(tape.parameters().size(), 5u);
  tape.backward({{again, matrix({1, 1, 1}, 1)}});
  arena.attach(nullptr);
  ASSERT_EQ(order.size(), 5u);
  EXPECT_EQ(order[0], "third.weight");
  EXPECT_EQ((std::set<std::string>{order[1], order[2]}), (std::set<std::string>{"second.weight", "second.bias"}));
  EXPECT_EQ((std::set<std::string>{order[3], order[4]}), (std::set<std::string>{"first.weight", "first.bias"}));
  const std::vector<float> last = gradients();
  for (std::size_t i = 0; i < order.size(); ++i) {
    const NamedParameter& p = *arena.find(order[i]);
    for (std::int64_t k = p.offset; k < p.offset + p.shape.count(); ++k) {
      EXPECT_NE(last[static_cast<std::size_t>(k)], 0) << order[i];
      EXPECT_EQ(then[i][static_cast<std::size_t>(k)], last[static_cast<std::size_t>(k)]) << order[i];
    }
  }
  const auto bias = static_cast<std::size_t>(arena.find("first.bias")->offset);
  EXPECT_NE(then[0][bias], last[bias]) << "its other use was still to come";
}

struct Block : Module {
  explicit Block(const Scope& scope)
      : wide(scope.child("wide"), 33, 65, 0.2f), narrow(scope.child("narrow"), 65, 33, 0.2f), norm(scope.child("norm"), 33, 1e-12f) {
    adopt(wide), adopt(narrow), adopt(norm);
  }
  Tensor operator()(const Tensor& x, const PackingPtr& packing) const {
    return residual_norm({.x = narrow.without_bias(wide(x, Activation::gelu)),
                          .residual = x,
                          .bias = narrow.bias,
                          .weight = norm.weight,
                          .shift = norm.bias,
                          .dropout = {0.3f, chance_of_step(1, 1, 1), 3},
                          .packing = packing});
  }
  Linear wide, narrow;
  LayerNorm norm;
};

struct Outcome {
  Floats y, dx, weights;
};
Outcome run_blocks(DType storage, bool recompute) {
  Parameters arena;
  const Block one(Scope{&arena, "one"}), two(Scope{&arena, "two"});
  arena.allocate(storage);
  arena.initialize(5);
  arena.allocate_training();
  Tape tape;
  arena.attach(&tape);
  const PackingPtr packing = packing_of({5, 0, 12});
  const Tensor start = tape.watch(random_tensor(Shape{17, 33}, storage, 9));
  Tensor x = start;
  for (const Block* b : {&one, &two}) {
    const auto segment = [b, packing](std::span<const Tensor> in) { return (*b)(in[0], packing); };
    x = recompute ? tape.recompute({x}, b->leaves(), segment) : segment(std::vector<Tensor>{x});
  }
  tape.backward({{x, random_tensor(Shape{17, 33}, storage, 10)}});
  arena.attach(nullptr);
  return {x.to(DType::f32).to_host<float>(), tape.gradient(start).to(DType::f32).to_host<float>(),
          Floats(arena.gradients().begin(), arena.gradients().end())};
}

TEST(tape, recompute_gives_equal_bits_with_dropout) {
  for (const DType storage : {DType::f32, DType::bf16}) {
    const Outcome kept = run_blocks(storage, false), again = run_blocks(storage, true);
    EXPECT_EQ(kept.y, again.y);
    EXPECT_EQ(kept.dx, again.dx);
    EXPECT_EQ(kept.weights, again.weights);
  }
}

TEST(tape, refuses_a_segment_that_uses_an_undeclared_parameter) {
  Parameters arena;
  const Block block(Scope{&arena, "block"});
  arena.allocate(DType::f32);
  arena.allocate_training();
  Tape tape;
  arena.attach(&tape);
  const PackingPtr packing = packing_of({2});
  const Tensor x = tape.watch(random_tensor(Shape{2, 33}, DType::f32, 1));
  EXPECT_THROW(tape.recompute({x}, block.wide.leaves(), [&](std::span<const Tensor> in) { return block(in[0], packing); }), ShapeError);
  arena.attach(nullptr);
}

TEST(tape, refuses_inputs_of_two_tapes) {
  Tape a, b;
  const Tensor x = a.watch(matrix({1}, 1)), y = b.watch(matrix({1}, 1));
  EXPECT_THROW(add(x, y), ShapeError);
}

}  // namespace
}  // namespace lc::test
