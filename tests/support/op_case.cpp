#include "tests/support/op_case.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/errors.h"
#include "engine/tape.h"

namespace lc::test {
namespace {

double norm(const Values& v) {
  double s = 0;
  for (const double x : v) s += x * x;
  return std::sqrt(s);
}
double dot(const Values& a, const Values& b) {
  double s = 0;
  for (std::size_t i = 0; i < a.size(); ++i) s += a[i] * b[i];
  return s;
}
Values minus(const Values& a, const Values& b) {
  Values d(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) d[i] = a[i] - b[i];
  return d;
}
Values normal(std::int64_t count, std::mt19937_64& random, double scale = 1, double offset = 0) {
  std::normal_distribution<double> n;
  Values v(static_cast<std::size_t>(count));
  for (double& x : v) x = offset + scale * n(random);
  return v;
}
DType type_of(const Input& input, DType storage) { return input.role == Role::vector ? DType::f32 : storage; }

Tensor tensor_of(const Values& v, const Shape& shape, DType type) {
  const std::vector<float> f(v.begin(), v.end());
  return Tensor::from(std::span<const float>(f), shape).to(type);
}
Values values_of(const Tensor& t) {
  const std::vector<float> f = t.to(DType::f32).to_host<float>();
  return {f.begin(), f.end()};
}

struct Run {
  Values output;
  std::vector<Values> gradients;  // empty where not differentiable
};

Run run_once(const OpCase& c, const std::vector<Values>& inputs, const Values& upstream, DType storage) {
  Tape tape;
  std::vector<Tensor> in;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor t = tensor_of(inputs[i], c.inputs[i].shape, type_of(c.inputs[i], storage));
    in.push_back(c.inputs[i].differentiable ? tape.watch(t) : t);
  }
  const Tensor out = c.run(in);
  Run r{values_of(out), {}};
  const Tensor seed = tensor_of(upstream, out.shape(), out.dtype());
  if (out.tape()) tape.backward({{out, seed}});
  for (std::size_t i = 0; i < in.size(); ++i) {
    const Tensor g = c.inputs[i].differentiable ? tape.gradient(in[i]) : Tensor();
    r.gradients.push_back(g ? values_of(g) : Values(c.inputs[i].differentiable ? inputs[i].size() : 0, 0.0));
  }
  return r;
}

// d⟨upstream, reference⟩ along a direction of input i, by central differences.
double slope(const OpCase& c, std::vector<Values> inputs, std::size_t i, const Values& direction, const Values& upstream) {
  double largest = 1e-30;
  for (const double d : direction) largest = std::max(largest, std::abs(d));
  const double h = 1e-5 / largest;
  const Values at = inputs[i];
  const auto value = [&](double step) {
    for (std::size_t k = 0; k < at.size(); ++k) inputs[i][k] = at[k] + step * direction[k];
    return dot(upstream, c.reference(inputs));
  };
  return (value(h) - value(-h)) / (2 * h);
}

void check_gradient(const OpCase& c, const std::vector<Values>& inputs, std::size_t i, const Values& upstream, const Values& analytic, double tolerance) {
  constexpr std::size_t kEveryCoordinate = 25;
  const std::size_t n = analytic.size();
  std::mt19937_64 random(991 + i);
  std::vector<Values> directions;
  if (n <= kEveryCoordinate) {
    for (std::size_t k = 0; k < n; ++k) directions.emplace_back(n, 0.0), directions.back()[k] = 1;
  } else {
    for (int k = 0; k < 8; ++k) directions.push_back(normal(static_cast<std::int64_t>(n), random));
  }
  const double scale = norm(analytic);
  for (const Values& direction : directions) {
    const double wanted = slope(c, inputs, i, direction, upstream), got = dot(analytic, direction);
    const double size = std::max(scale * norm(direction) / std::sqrt(static_cast<double>(std::max<std::size_t>(1, n))), std::abs(wanted));
    EXPECT_NEAR(got, wanted, tolerance * size + 1e-7) << c.word << " / " << c.name << ": gradient of " << c.inputs[i].name;
  }
}

void check_as(const OpCase& c, DType storage) {
  SCOPED_TRACE(fmt::format("{} / {} in {}", c.word, c.name, name_of(storage)));
  std::mt19937_64 random(4242);
  std::vector<Values> inputs;
  for (const Input& input : c.inputs) {
    const Values v = normal(input.shape.count(), random, input.scale, input.offset);
    inputs.push_back(values_of(tensor_of(v, input.shape, type_of(input, storage))));  // rounded, so a tolerance measures the kernel
  }
  const Values wanted = c.reference(inputs);
  const bool loss = wanted.size() == 1;
  Values upstream = normal(static_cast<std::int64_t>(wanted.size()), random);
  if (loss) upstream[0] = 0.75;
  for (double& u : upstream) u = to_float(from_float<bf16>(static_cast<float>(u)));  // exact in both storage types

  const int threads = omp_get_max_threads();
  omp_set_num_threads(2);
  const Run run = run_once(c, inputs, upstream, storage);
  omp_set_num_threads(1);
  const Run alone = run_once(c, inputs, upstream, storage);
  omp_set_num_threads(threads);

  ASSERT_EQ(run.output.size(), wanted.size());
  EXPECT_EQ(run.output, alone.output) << "output differs between one and two threads";
  const double tolerance = storage == DType::bf16 ? c.tolerance_bf16 : c.tolerance;
  EXPECT_LE(norm(minus(run.output, wanted)), tolerance * norm(wanted) + 1e-7);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!c.inputs[i].differentiable) continue;
    EXPECT_EQ(run.gradients[i], alone.gradients[i]) << "gradient of " << c.inputs[i].name << " differs between one and two threads";
    ASSERT_EQ(run.gradients[i].size(), inputs[i].size());
    check_gradient(c, inputs, i, upstream, run.gradients[i], storage == DType::bf16 ? c.gradient_tolerance_bf16 : c.gradient_tolerance);
  }
}

}  // namespace

void check(const OpCase& c) {
  if (c.benchmark_only) return;
  check_as(c, DType::f32);
  check_as(c, DType::bf16);
}

void check(const WrongCall& c) { EXPECT_THROW(c.call(), ShapeError) << c.word << " / " << c.name; }

std::vector<std::int32_t> ragged(std::int64_t sequences, std::int64_t longest, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::int32_t> lengths(static_cast<std::size_t>(sequences));
  for (auto& n : lengths) n = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(longest + 1));
  if (sequences > 0) lengths[0] = static_cast<std::int32_t>(longest);
  if (sequences > 2) lengths[1] = 0;
  return lengths;
}

PackingPtr packing_of(const std::vector<std::int32_t>& lengths, std::uint64_t first_key, const std::vector<std::int32_t>& kv_of) {
  PackingSpec spec{lengths, {}, kv_of};
  for (std::size_t b = 0; b < lengths.size(); ++b) spec.keys.push_back(sequence_key(Pass::view_a, first_key + 7 * b));
  return Packing::make(spec);
}

Tensor random_tensor(const Shape& shape, DType type, std::uint64_t seed, double scale) {
  std::mt19937_64 random(seed);
  return tensor_of(normal(shape.count(), random, scale), shape, type);
}

Tensor ids_of(const std::vector<std::int32_t>& ids) { return Tensor::from(ids); }

}  // namespace lc::test
