// matmul against three loops. Sizes lie on both sides of every tile: 64 and 128 rows, 1024 columns, 512 and 1024 tokens. The tensor cores
// take rows of whole 16 bytes only.
#include <cmath>

#include "engine/tape.h"
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

enum class Bias : std::uint8_t { none, given };
struct Setting {
  std::int64_t tokens = 0, in = 0, out = 0;
  Activation activation = Activation::none;
  Bias bias = Bias::given;
};

double activated(double x, Activation activation) {
  if (activation == Activation::relu) return x <= 0 ? 0 : x;  // NaN stays
  if (activation == Activation::gelu) return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
  return x;
}

Values reference(const Setting& s, const std::vector<Values>& in) {
  const Values &x = in[0], &w = in[1];
  Values y;
  for (std::int64_t t = 0; t < s.tokens; ++t) {
    for (std::int64_t n = 0; n < s.out; ++n) {
      double sum = s.bias == Bias::given ? in[2][n] : 0;
      for (std::int64_t k = 0; k < s.in; ++k) sum += x[t * s.in + k] * w[n * s.in + k];
      y.push_back(activated(sum, s.activation));
    }
  }
  return y;
}

OpCase make(const std::string& name, const Setting& s) {
  OpCase c;
  c.word = "matmul", c.name = name;
  c.inputs = {{"x", {s.tokens, s.in}}, {"w", {s.out, s.in}, Role::parameter, 1 / std::sqrt(static_cast<double>(s.in))}};
  if (s.bias == Bias::given) c.inputs.push_back({"b", {s.out}, Role::vector});
  c.run = [=](const std::vector<Tensor>& in) { return linear(in[0], in[1], s.bias == Bias::given ? in[2] : Tensor(), s.activation); };
  c.reference = [=](const std::vector<Values>& in) { return reference(s, in); };
  c.flops = 2.0 * static_cast<double>(s.tokens * s.in * s.out);
  c.moved = static_cast<double>(s.tokens * (s.in + s.out) + s.in * s.out);
  return c;
}

OpCase benchmark(const std::string& name, const Setting& s) {
  OpCase c = make(name, s);
  c.benchmark_only = true;
  return c;
}

// x is a column slice: rows with gaps in the forward product and in both gradients.
OpCase of_a_slice() {
  const Setting s{.tokens = 65, .in = 33, .out = 17, .activation = Activation::relu};
  OpCase c = make("x is a column slice", s);
  c.inputs[0].shape = {65, 40};
  c.run = [=](const std::vector<Tensor>& in) { return linear(in[0].slice_columns(5, 33), in[1], in[2], s.activation); };
  c.reference = [=](const std::vector<Values>& in) {
    Values slice;
    for (std::int64_t t = 0; t < 65; ++t) slice.insert(slice.end(), in[0].begin() + t * 40 + 5, in[0].begin() + t * 40 + 38);
    return reference(s, {slice, in[1], in[2]});
  };
  return c;
}

// Two products share x, w and b: each gradient is added to what is there.
OpCase used_twice(const std::string& name, std::int64_t tokens) {
  const Setting once{.tokens = tokens, .in = 65, .out = 7}, again{.tokens = tokens, .in = 65, .out = 7, .activation = Activation::gelu};
  OpCase c = make(name, once);
  c.run = [=](const std::vector<Tensor>& in) { return add(linear(in[0], in[1], in[2]), linear(in[0], in[1], in[2], again.activation)); };
  c.reference = [=](const std::vector<Values>& in) {
    Values y = reference(once, in);
    const Values z = reference(again, in);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += z[i];
    return y;
  };
  return c;
}

}  // namespace

std::vector<OpCase> matmul_cases() {
  const Activation relu = Activation::relu, gelu = Activation::gelu;
  return {
      make("one of everything", {.tokens = 1, .in = 1, .out = 1}),
      make("odd sizes", {.tokens = 33, .in = 65, .out = 31}),
      make("no bias", {.tokens = 65, .in = 33, .out = 1, .bias = Bias::none}),
      make("no bias, gelu", {.tokens = 3, .in = 5, .out = 4, .activation = gelu, .bias = Bias::none}),
      make("relu", {.tokens = 65, .in = 33, .out = 31, .activation = relu}),  // no pre-activation so near 0 that differences meet the kink
      make("gelu", {.tokens = 65, .in = 33, .out = 65, .activation = gelu}),
      make("several row tiles", {.tokens = 600, .in = 9, .out = 17, .activation = gelu}),
      make("more tokens than one step of the weight gradient", {.tokens = 1100, .in = 5, .out = 7, .activation = relu}),
      make("rows of whole 16 bytes", {.tokens = 65, .in = 40, .out = 24, .activation = gelu}),
      make("rows of whole 16 bytes, several tiles", {.tokens = 130, .in = 72, .out = 136, .activation = relu}),
      make("rows of whole 16 bytes, a depth in parts", {.tokens = 1100, .in = 40, .out = 24, .bias = Bias::none}),
      make("several column tiles", {.tokens = 5, .in = 7, .out = 1030, .activation = relu}),
      make("many inputs", {.tokens = 3, .in = 1030, .out = 65}),
      make("no rows", {.tokens = 0, .in = 5, .out = 7, .activation = gelu}),
      of_a_slice(),
      used_twice("two products of one x, w and b", 35),
      used_twice("two products of one x, w and b, a depth the twin of the library takes", 36),
      benchmark("small: query, key and value", {.tokens = 8192, .in = 256, .out = 768}),
      benchmark("small: attention output, no bias", {.tokens = 8192, .in = 256, .out = 256, .bias = Bias::none}),
      benchmark("small: first feed-forward, relu", {.tokens = 8192, .in = 256, .out = 512, .activation = relu}),
      benchmark("small: second feed-forward, no bias", {.tokens = 8192, .in = 512, .out = 256, .bias = Bias::none}),
      benchmark("langcell: query, key and value", {.tokens = 65536, .in = 512, .out = 1536}),
      benchmark("langcell: attention output, no bias", {.tokens = 65536, .in = 512, .out = 512, .bias = Bias::none}),
      benchmark("langcell: first feed-forward, relu", {.tokens = 65536, .in = 512, .out = 1024, .activation = relu}),
      benchmark("langcell: second feed-forward, no bias", {.tokens = 65536, .in = 1024, .out = 512, .bias = Bias::none}),
      benchmark("langcell: text feed-forward, gelu", {.tokens = 2048, .in = 768, .out = 3072, .activation = gelu}),
  };
}

std::vector<WrongCall> matmul_wrong_calls() {
  const auto call = [](const std::string& name, const Tensor& x, const Tensor& w, const Tensor& b) {
    return WrongCall{"matmul", name, [=] { linear(x, w, b); }};
  };
  const Tensor x = random_tensor({3, 5}, DType::f32, 1), w = random_tensor({4, 5}, DType::f32, 2), b = random_tensor({4}, DType::f32, 3);
  return {
      call("weights of another width", x, random_tensor({4, 6}, DType::f32, 2), b),
      call("weights of another type", x, random_tensor({4, 5}, DType::bf16, 2), b),
      call("weights that are a vector", x, random_tensor({5}, DType::f32, 2), b),
      call("no weights", x, Tensor(), b),
      call("x that is a vector", random_tensor({5}, DType::f32, 1), w, b),
      call("x of integers", ids_of({1, 2, 3}), w, b),
      call("a bias of another length", x, w, random_tensor({5}, DType::f32, 3)),
      call("a bias in bf16", x, w, random_tensor({4}, DType::bf16, 3)),
  };
}

}  // namespace lc::test
