// adamw over three steps, and gradient_norm, against the formulas in double (Loshchilov & Hutter 2019, algorithm 2).
#include <algorithm>
#include <cmath>

#include "tests/support/op_case.h"

namespace lc::test {
namespace {

using kernels::Segment;
constexpr int kSteps = 3;
constexpr float kClip = 0.5f, kRate = 0.05f;
enum class Output : std::uint8_t { master, moment1, moment2, storage_error };

struct Setting {
  std::int64_t elements = 0;
  std::vector<Segment> segments;
};

struct State {  // where the test's queue says
  Tensor master, moment1, moment2, storage;
};

template <class T>
State start(const Tensor& parameters) {
  const Queue queue = parameters.queue();
  const Shape& shape = parameters.shape();
  State state{Tensor::from(parameters.to_host<float>(), queue),
              Tensor::zeros(shape, DType::f32, queue),
              Tensor::zeros(shape, DType::f32, queue),
              {}};
  if constexpr (std::is_same_v<T, bf16>) state.storage = state.master.to(DType::bf16);
  return state;
}

template <class T>
void take_step(const Setting& s, const State& state, const Tensor& gradient, const Tensor& clip, int step) {
  const Queue queue = gradient.queue();
  T* storage = nullptr;
  if constexpr (std::is_same_v<T, bf16>) storage = state.storage.data<bf16>();
  const kernels::AdamW<T> a{.master = state.master.data<float>(),
                            .moment1 = state.moment1.data<float>(),
                            .moment2 = state.moment2.data<float>(),
                            .gradient = gradient.data<float>(),
                            .storage = storage,
                            .segments = s.segments.data(),
                            .count = static_cast<std::int64_t>(s.segments.size()),
                            .clip_factor = clip.data<float>(),
                            .lr = kRate,
                            .step = step};
  on(queue, [&]<Device D>() { kernels::adamw<D>(queue, a); });
}

// inputs: the parameters, then the gradients of each step.
template <class T>
State run_steps(const Setting& s, const std::vector<Tensor>& in) {
  const State state = start<T>(in[0]);
  const Tensor clip = Tensor::scalar(kClip, in[0].queue());
  for (int step = 1; step <= kSteps; ++step) take_step<T>(s, state, in[static_cast<std::size_t>(step)], clip, step);
  return state;
}

Tensor output_of(const State& s, Output wanted) {
  if (wanted == Output::moment1) return s.moment1;
  if (wanted == Output::moment2) return s.moment2;
  if (wanted == Output::master) return s.master;
  const std::vector<float> master = s.master.to_host<float>(), storage = s.storage.to(DType::f32).to_host<float>();
  std::vector<float> errors;
  for (std::size_t i = 0; i < master.size(); ++i) errors.push_back(storage[i] - to_float(from_float<bf16>(master[i])));
  return Tensor::from(errors);
}

Values reference(const Setting& s, const std::vector<Values>& in, Output wanted) {
  Values p = in[0], m(p.size()), v(p.size());
  const double beta1 = 0.9f, beta2 = 0.999f;
  for (int step = 1; step <= kSteps; ++step) {
    for (const Segment& segment : s.segments) {
      for (std::int64_t i = segment.offset; !segment.frozen && i < segment.offset + segment.length; ++i) {
        const double g = in[step][i] * static_cast<double>(kClip);
        m[i] = beta1 * m[i] + (1 - beta1) * g;
        v[i] = beta2 * v[i] + (1 - beta2) * g * g;
        const double first = m[i] / (1 - std::pow(beta1, step)), second = v[i] / (1 - std::pow(beta2, step));
        p[i] = p[i] * (1 - static_cast<double>(kRate) * static_cast<double>(segment.decay)) -
               static_cast<double>(kRate) * first / (std::sqrt(second) + 1e-8);
      }
    }
  }
  if (wanted == Output::storage_error) return Values(p.size(), 0.0);
  return wanted == Output::master ? p : wanted == Output::moment1 ? m : v;
}

OpCase step_case(const std::string& name, const Setting& s, Output wanted) {
  OpCase c;
  c.word = "adamw", c.name = name, c.inputs = {{"parameters", Shape{s.elements}, Role::vector, 1, 0, false}};
  for (int step = 0; step < kSteps; ++step) c.inputs.push_back({"gradient", {s.elements}, Role::vector, 0.3, 0, false});
  c.run = [=](const std::vector<Tensor>& in) {
    return output_of(wanted == Output::storage_error ? run_steps<bf16>(s, in) : run_steps<float>(s, in), wanted);
  };
  c.reference = [=](const std::vector<Values>& in) { return reference(s, in, wanted); };
  c.tolerance = c.tolerance_bf16 = 1e-6;
  return c;
}

// One step over parameters stored as bf16, as a GPU trains.
OpCase benchmark(const std::string& name, std::int64_t elements) {
  const Setting s{elements, {{0, elements, 0.001f, 0}}};
  OpCase c;
  c.word = "adamw", c.name = name, c.benchmark_only = true;
  c.inputs = {{"parameters", Shape{elements}, Role::vector, 1, 0, false}, {"gradient", {elements}, Role::vector, 0.3, 0, false}};
  c.prepare = [=](const std::vector<Tensor>& in) -> std::function<void()> {
    return [s, gradient = in[1], state = start<bf16>(in[0]), clip = Tensor::scalar(kClip, in[0].queue()), step = 0]() mutable {
      take_step<bf16>(s, state, gradient, clip, ++step);
    };
  };
  c.bytes = 30.0 * static_cast<double>(elements);  // parameter and moments read and written, gradient read, bf16 written
  return c;
}

// Gradients so small that the 1e-6 beside the norm shows.
OpCase norm_case(const std::string& name, const Setting& s, float clip) {
  OpCase c;
  c.word = "adamw", c.name = name, c.inputs = {{"gradient", Shape{s.elements}, Role::vector, 0.003, 0, false}};
  c.run = [=](const std::vector<Tensor>& in) {
    const Queue queue = in[0].queue();
    const auto count = static_cast<std::int64_t>(s.segments.size());
    const Tensor out = Tensor::from(std::vector<float>{-1, -1}, queue);
    const kernels::GradientNorm a{.gradient = in[0].data<float>(),
                                  .segments = s.segments.data(),
                                  .count = count,
                                  .clip = clip,
                                  .norm = out.data<float>(),
                                  .clip_factor = out.data<float>() + 1};
    on(queue, [&]<Device D>() { kernels::gradient_norm<D>(queue, a); });
    return out;
  };
  c.reference = [=](const std::vector<Values>& in) {
    double squares = 0;
    for (const Segment& segment : s.segments) {
      for (std::int64_t i = segment.offset; !segment.frozen && i < segment.offset + segment.length; ++i) squares += in[0][i] * in[0][i];
    }
    const double norm = std::sqrt(squares);
    return Values{norm, clip > 0 ? std::min(1.0, static_cast<double>(clip) / (norm + 1e-6)) : 1.0};
  };
  c.tolerance = c.tolerance_bf16 = 1e-7;
  c.bytes = 4.0 * static_cast<double>(s.elements);
  return c;
}

}  // namespace

std::vector<OpCase> adamw_cases() {
  const Setting mixed{20000, {{0, 33, 0.1f, 0}, {40, 17001, 0.01f, 0}, {17050, 65, 0, 1}, {17200, 2799, 0, 0}, {19999, 1, 0, 0}}};
  const Setting nothing{5, {}}, frozen{5, {{0, 5, 0.1f, 1}}}, large{9'000'000, {{0, 9'000'000, 0.001f, 0}}};
  Setting many{1400, {}};
  for (std::int64_t i = 0; i < 200; ++i) many.segments.push_back({7 * i, 1 + i % 7, 0.01f * static_cast<float>(i % 3), i % 5 == 4});
  std::vector<OpCase> cases = {
      step_case("parameters", mixed, Output::master),
      step_case("first moment", mixed, Output::moment1),
      step_case("second moment", mixed, Output::moment2),
      step_case("storage is the rounded parameter", {16, {{0, 7, 0.1f, 0}, {7, 9, 0, 1}}}, Output::storage_error),
      step_case("no segments", nothing, Output::master),
      step_case("all frozen", frozen, Output::master),
      step_case("more segments than one launch takes", many, Output::master),
      norm_case("norm over many segments", many, 0.1f),
      norm_case("norm, clipped", mixed, 0.1f),
      norm_case("norm, below the limit", mixed, 1e6f),
      norm_case("norm, no clipping", mixed, 0),
      norm_case("norm of nothing", nothing, 1),
      norm_case("norm of nine million", large, 1),
      benchmark("nine million parameters", 9'000'000),
      benchmark("langcell, 172 million parameters", 172'000'000),
  };
  cases[cases.size() - 3].benchmark_only = true;
  return cases;
}

std::vector<WrongCall> adamw_wrong_calls() { return {}; }

}  // namespace lc::test
