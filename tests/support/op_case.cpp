#include "tests/support/op_case.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

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

Tensor tensor_of(const Values& v, const Shape& shape, DType type, const Queue& queue = {}) {
  const std::vector<float> f(v.begin(), v.end());
  return Tensor::from(std::span<const float>(f), shape, queue).to(type);
}
Values values_of(const Tensor& t) {
  const std::vector<float> f = t.to(DType::f32).to_host<float>();
  return {f.begin(), f.end()};
}

struct Run {
  Values output;
  std::vector<Values> gradients;  // empty where not differentiable
};

struct Problem {  // random numbers for a case, already rounded to the storage type, and what is wanted
  DType storage;
  std::vector<Values> inputs;
  Values wanted, upstream;
};

Problem problem_of(const OpCase& c, DType storage) {
  std::mt19937_64 random(4242);
  Problem p{storage, {}, {}, {}};
  for (const Input& input : c.inputs) {
    const Values v = normal(input.shape.count(), random, input.scale, input.offset);
    p.inputs.push_back(values_of(tensor_of(v, input.shape, type_of(input, storage))));  // rounded, so a tolerance measures the kernel
  }
  p.wanted = c.reference(p.inputs);
  p.upstream = normal(static_cast<std::int64_t>(p.wanted.size()), random);
  if (p.wanted.size() == 1) p.upstream[0] = 0.75;                                      // a loss
  for (double& u : p.upstream) u = to_float(from_float<bf16>(static_cast<float>(u)));  // exact in both storage types
  return p;
}

struct WithTestQueue {  // for as long as it lives
  explicit WithTestQueue(const Queue& queue) { before = std::exchange(test_queue(), queue); }
  WithTestQueue(const WithTestQueue&) = delete;
  ~WithTestQueue() { test_queue() = before; }
  Queue before;
};

Values output_of(const OpCase& c, const Problem& p, const Queue& queue) {
  const WithTestQueue here(queue);
  std::vector<Tensor> in;
  for (std::size_t i = 0; i < p.inputs.size(); ++i)
    in.push_back(tensor_of(p.inputs[i], c.inputs[i].shape, type_of(c.inputs[i], p.storage), queue));
  return values_of(c.run(in));
}

Run run_once(const OpCase& c, const Problem& p, const Queue& queue = {}) {
  const WithTestQueue here(queue);
  const std::vector<Values>& inputs = p.inputs;
  Tape tape;
  std::vector<Tensor> in;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor t = tensor_of(inputs[i], c.inputs[i].shape, type_of(c.inputs[i], p.storage), queue);
    in.push_back(c.inputs[i].differentiable ? tape.watch(t) : t);
  }
  const Tensor out = c.run(in);
  Run r{values_of(out), {}};
  const Tensor seed = tensor_of(p.upstream, out.shape(), out.dtype(), queue);
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

void check_gradient(const OpCase& c, const std::vector<Values>& inputs, std::size_t i, const Values& upstream, const Values& analytic,
                    double tolerance) {
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

void expect_equal_bits(const OpCase& c, const Run& run, const Run& other, const std::string& between) {
  EXPECT_EQ(run.output, other.output) << "output differs between " << between;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    EXPECT_EQ(run.gradients[i], other.gradients[i]) << "gradient of " << c.inputs[i].name << " differs between " << between;
  }
}

// One run against the double reference and its differences.
void judge(const OpCase& c, const Problem& p, const Run& run) {
  const bool low = p.storage == DType::bf16;
  ASSERT_EQ(run.output.size(), p.wanted.size());
  EXPECT_LE(norm(minus(run.output, p.wanted)), (low ? c.tolerance_bf16 : c.tolerance) * norm(p.wanted) + 1e-7);
  for (std::size_t i = 0; i < p.inputs.size(); ++i) {
    if (!c.inputs[i].differentiable) continue;
    ASSERT_EQ(run.gradients[i].size(), p.inputs[i].size());
    check_gradient(c, p.inputs, i, p.upstream, run.gradients[i], low ? c.gradient_tolerance_bf16 : c.gradient_tolerance);
  }
}

void check_as(const OpCase& c, DType storage) {
  SCOPED_TRACE(fmt::format("{} / {} in {}", c.word, c.name, name_of(storage)));
  const Problem p = problem_of(c, storage);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(2);
  const Run run = run_once(c, p);
  omp_set_num_threads(1);
  const Run alone = run_once(c, p);
  omp_set_num_threads(threads);

  expect_equal_bits(c, run, alone, "one and two threads");
  judge(c, p, run);
}

// Two kernels that round at other places may each be off by the tolerance.
void expect_near(const Values& got, const Values& other, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), other.size()) << what;
  EXPECT_LE(norm(minus(got, other)), 2 * tolerance * norm(other) + 1e-6) << what << ": CUDA against the CPU";
}

void check_both_as(const OnBoth& both, DType storage, const std::vector<std::function<void()>>& settings) {
  const OpCase& c = both.cpu;
  SCOPED_TRACE(fmt::format("{} / {} in {} on CUDA", c.word, c.name, name_of(storage)));
  const Problem p = problem_of(c, storage);
  const Run cpu = run_once(c, p);
  std::vector<Run> runs;
  for (const auto& set : settings) {
    set();
    runs.push_back(run_once(both.cuda, p, Queue{Device::cuda}));
  }
  for (const Run& run : runs) expect_equal_bits(c, run, runs[0], "two settings of CUDA");
  judge(c, p, runs[0]);
  const bool low = storage == DType::bf16;
  expect_near(runs[0].output, cpu.output, low ? c.tolerance_bf16 : c.tolerance, "output");
  for (std::size_t i = 0; i < p.inputs.size(); ++i) {
    expect_near(runs[0].gradients[i], cpu.gradients[i], low ? c.gradient_tolerance_bf16 : c.gradient_tolerance,
                "gradient of " + c.inputs[i].name);
  }
}

}  // namespace

void check(const OpCase& c) {
  if (c.benchmark_only) return;
  check_as(c, DType::f32);
  check_as(c, DType::bf16);
}

Queue& test_queue() {
  static Queue queue;
  return queue;
}

void check(const OnBoth& c, const std::vector<std::function<void()>>& settings, const std::vector<DType>& storages) {
  if (c.cpu.benchmark_only) return;
  for (const DType storage : storages) check_both_as(c, storage, settings);
}

void check_nan(const OpCase& c, const Queue& queue, const std::vector<DType>& storages) {
  if (c.benchmark_only) return;
  for (const DType storage : storages) {
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      Problem p = problem_of(c, storage);
      if (p.inputs[i].empty()) continue;
      p.inputs[i][p.inputs[i].size() / 2] = std::numeric_limits<double>::quiet_NaN();
      const Values wanted = c.reference(p.inputs), got = output_of(c, p, queue);
      ASSERT_EQ(got.size(), wanted.size());
      std::int64_t lost = 0;
      for (std::size_t k = 0; k < wanted.size(); ++k) lost += std::isnan(wanted[k]) && !std::isnan(got[k]);
      EXPECT_EQ(lost, 0) << c.word << " / " << c.name << " in " << name_of(storage) << ": NaN that were lost of one in "
                         << c.inputs[i].name;
    }
  }
}

void check_activations_of_nan(const Queue& queue) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType storage : {DType::f32, DType::bf16}) {
    for (const Activation activation : {Activation::relu, Activation::gelu}) {
      for (const std::int64_t depth : {8, 9, 40}) {  // by the library's twin, by tiles, by plain loops
        SCOPED_TRACE(fmt::format("{} of {} inputs in {}", activation == Activation::relu ? "relu" : "gelu", depth, name_of(storage)));
        Tape tape;
        Values x(static_cast<std::size_t>(depth), 0.0), w(static_cast<std::size_t>(8 * depth), 0.0);
        x[0] = 1, w[0] = 2, w[static_cast<std::size_t>(depth)] = -1, w[static_cast<std::size_t>(2 * depth)] = nan;
        const Tensor b = tape.watch(Tensor::zeros({8}, DType::f32, queue));
        const Tensor y = linear(tensor_of(x, {1, depth}, storage, queue), tensor_of(w, {8, depth}, storage, queue), b, activation);
        tape.backward({{y, tensor_of({3, nan, 5, 0, 0, 0, 0, 0}, {1, 8}, storage, queue)}});
        const Values out = values_of(y), db = values_of(tape.gradient(b));
        EXPECT_NEAR(out[0], activation == Activation::relu ? 2 : 1.9545, 1e-2);
        EXPECT_NEAR(out[1], activation == Activation::relu ? 0 : -0.1587, 1e-3);
        EXPECT_TRUE(std::isnan(out[2])) << out[2];
        if (activation == Activation::gelu) {
          EXPECT_TRUE(std::isnan(db[1]) && std::isnan(db[2])) << db[1] << ", " << db[2];
        } else {  // where y is 0 nothing passes, where it is NaN everything does
          EXPECT_EQ(db[0], 3);
          EXPECT_EQ(db[1], 0);
          EXPECT_EQ(db[2], 5);
        }
      }
    }
  }
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
  return Packing::make(spec, test_queue());
}

Tensor random_tensor(const Shape& shape, DType type, std::uint64_t seed, double scale) {
  std::mt19937_64 random(seed);
  return tensor_of(normal(shape.count(), random, scale), shape, type, test_queue());
}

Tensor ids_of(const std::vector<std::int32_t>& ids) { return Tensor::from(ids, test_queue()); }

}  // namespace lc::test
