// Sequences lie end to end: what is not finite in one must not reach the next through a tile that holds rows of both.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "engine/tape.h"
#include "tests/shim/shim.h"
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

struct Numbers {
  std::vector<float> output;
  std::vector<std::vector<float>> gradients;  // of q, k, v
};

// Attention over sequences of 70 and 65 tokens, whose second holds `value` throughout; only the numbers of the first come back.
Numbers first_sequence(float value, int width) {
  const Queue queue{Device::cuda};
  test_queue() = queue;
  const PackingPtr packing = packing_of({70, 65});
  test_queue() = Queue{};
  const Shape shape{135, width};
  const auto spoilt = [&](std::uint64_t seed) {
    std::vector<float> x = random_tensor(shape, DType::f32, seed).to_host<float>();
    std::fill(x.begin() + 70 * width, x.end(), value);
    return Tensor::from(std::span<const float>(x), shape, queue).to(DType::bf16);
  };
  const auto kept = [&](const Tensor& t) {
    std::vector<float> x = t.to(DType::f32).to_host<float>();
    x.resize(static_cast<std::size_t>(70 * width));
    return x;
  };
  Tape tape;
  std::vector<Tensor> in;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) in.push_back(tape.watch(spoilt(seed)));
  const Tensor out = attention({in[0], in[1], in[2], 1, packing, packing, Dropout{0.1f, {{1, 2}}, 3}});
  tape.backward({{out, spoilt(4)}});
  Numbers n{kept(out), {}};
  for (const Tensor& t : in) n.gradients.push_back(kept(tape.gradient(t)));
  return n;
}

void expect_untouched(int width) {
  const Numbers clean = first_sequence(1.0f, width), beside = first_sequence(std::numeric_limits<float>::quiet_NaN(), width);
  ASSERT_TRUE(std::isfinite(clean.output[0]));
  EXPECT_EQ(beside.output, clean.output);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(beside.gradients[i], clean.gradients[i]) << "gradient of "
                                                       << "qkv"[i];
}

TEST(CudaNeighbours, a_sequence_of_nan_does_not_reach_the_sequence_before_it) { expect_untouched(64); }

TEST(HopperNeighbours, a_sequence_of_nan_does_not_reach_the_sequence_before_it) {
  shim::compute_major = 9, shim::shared_limit = 227 * 1024;
  expect_untouched(64);
  expect_untouched(128);
  shim::compute_major = 8, shim::shared_limit = 163 * 1024;
}

}  // namespace
}  // namespace lc::test
