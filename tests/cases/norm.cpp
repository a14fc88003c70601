// norm against plain loops: residual, bias, dropout and LayerNorm one after the other; the mask is drawn byte by byte from numeric.h.
#include <algorithm>
#include <cmath>

#include "tests/support/op_case.h"

namespace lc::test {
namespace {

struct Setting {
  std::vector<std::int32_t> lengths;
  std::int64_t columns = 0;
  float dropout = 0;
  bool residual = false, bias = false;
};

double kept(const Dropout& d, std::uint64_t key, std::int64_t row, std::int64_t column) {
  if (d.rate == 0) return 1;
  const Philox bits = hidden_bits(d, key, static_cast<int>(row), static_cast<int>(column / 16));
  const std::uint32_t byte = bits.word[column / 4 % 4] >> (8 * (column % 4)) & 255u;
  return byte < keep_threshold(d, key, 0, static_cast<int>(row / 16)) ? 1 / (1 - static_cast<double>(d.rate)) : 0;
}

Values layer_norm_of(const Values& x, const Values& weight, const Values& shift) {
  const std::size_t columns = weight.size();
  Values y;
  for (std::size_t row = 0; row < x.size(); row += columns) {
    double mean = 0, variance = 0;
    for (std::size_t c = 0; c < columns; ++c) mean += x[row + c] / static_cast<double>(columns);
    for (std::size_t c = 0; c < columns; ++c) variance += (x[row + c] - mean) * (x[row + c] - mean) / static_cast<double>(columns);
    for (std::size_t c = 0; c < columns; ++c) y.push_back((x[row + c] - mean) / std::sqrt(variance + 1e-12) * weight[c] + shift[c]);
  }
  return y;
}

// in: x, weight, shift, then residual and bias where there are some.
Values reference(const Setting& s, const Packing& packing, const Dropout& dropout, const std::vector<Values>& in) {
  Values sum = in[0];
  for (std::size_t b = 0; b < s.lengths.size(); ++b) {
    for (std::int64_t row = 0; row < s.lengths[b]; ++row) {
      for (std::int64_t c = 0; c < s.columns; ++c) {
        double& v = sum[(packing.offsets()[b] + row) * s.columns + c];
        if (s.bias) v += in.back()[c];
        const double factor = kept(dropout, packing.keys()[b], row, c);
        v = factor == 0 ? 0 : v * factor;  // what is dropped is 0, whatever it was
      }
    }
  }
  for (std::size_t i = 0; s.residual && i < sum.size(); ++i) sum[i] += in[3][i];
  return layer_norm_of(sum, in[1], in[2]);
}

OpCase make(const std::string& name, const Setting& s) {
  const PackingPtr packing = packing_of(s.lengths);
  const Dropout dropout{s.dropout, chance_of_step(11, 2, 9), 5};
  const Shape shape{packing->tokens(), s.columns};
  OpCase c;
  c.word = "norm", c.name = name;
  c.inputs = {{"x", shape}, {"weight", {s.columns}, Role::vector, 0.3, 1}, {"shift", {s.columns}, Role::vector}};
  if (s.residual) c.inputs.push_back({"residual", shape});
  if (s.bias) c.inputs.push_back({"bias", {s.columns}, Role::vector});
  c.run = [=](const std::vector<Tensor>& in) {
    return residual_norm({.x = in[0],
                          .residual = s.residual ? in[3] : Tensor(),
                          .bias = s.bias ? in.back() : Tensor(),
                          .weight = in[1],
                          .shift = in[2],
                          .dropout = dropout,
                          .packing = s.dropout > 0 ? packing : nullptr});
  };
  c.reference = [=](const std::vector<Values>& in) { return reference(s, *packing, dropout, in); };
  c.flops = 9.0 * static_cast<double>(shape.count());
  c.moved = static_cast<double>(shape.count()) *
            (2 + (s.residual ? 1 : 0) + (s.residual || s.bias || s.dropout > 0 ? 1 : 0));  // x, residual, sum, y
  c.moved_backward = static_cast<double>(shape.count()) * (s.residual ? 4 : 3);            // dy, sum, dx, dresidual
  return c;
}

OpCase its_own_residual(const std::string& name, std::int64_t columns) {
  OpCase c = make(name, {.lengths = {33}, .columns = columns});
  c.run = [](const std::vector<Tensor>& in) {
    return residual_norm({.x = in[0], .residual = in[0], .bias = {}, .weight = in[1], .shift = in[2]});
  };
  c.reference = [](const std::vector<Values>& in) {
    Values twice = in[0];
    for (double& v : twice) v *= 2;
    return layer_norm_of(twice, in[1], in[2]);
  };
  return c;
}

// The parameters of one norm serve two: their gradients are added to what is there.
OpCase used_twice(const std::string& name, std::int64_t columns) {
  const Setting s{.lengths = {65}, .columns = columns, .residual = true, .bias = true};
  OpCase c = make(name, s);
  const auto once = c.run;
  c.run = [=](const std::vector<Tensor>& in) { return once({once(in), in[1], in[2], in[3], in[4]}); };
  const auto reference_of_one = c.reference;
  c.reference = [=](const std::vector<Values>& in) { return reference_of_one({reference_of_one(in), in[1], in[2], in[3], in[4]}); };
  return c;
}

// A mean 1000 times the deviation: a variance from the mean of the squares would be wrong in the first digit.
OpCase far_from_zero() {
  OpCase c = make("a mean far from zero", {.lengths = {7}, .columns = 65});
  c.inputs[0].offset = 1000;
  c.tolerance = 2e-4;                                         // x itself has only 1000 · 6e-8 of its deviation
  c.gradient_tolerance = 1e-3;                                // as above
  c.tolerance_bf16 = 5e-2, c.gradient_tolerance_bf16 = 1e-1;  // x takes a few distinct values; y is then rounded to eight bits
  return c;
}

Values unit_rows(Values x, std::int64_t columns) {
  for (std::size_t row = 0; row < x.size(); row += static_cast<std::size_t>(columns)) {
    double squares = 0;
    for (std::int64_t c = 0; c < columns; ++c) squares += x[row + c] * x[row + c];
    for (std::int64_t c = 0; c < columns; ++c) x[row + c] /= std::max(std::sqrt(squares), 1e-12);
  }
  return x;
}

OpCase unit(const std::string& name, std::int64_t rows, std::int64_t columns) {
  OpCase c;
  c.word = "norm", c.name = name;
  c.inputs = {{"x", {rows, columns}}};
  c.run = [](const std::vector<Tensor>& in) { return l2_normalize(in[0]); };
  c.reference = [=](const std::vector<Values>& in) { return unit_rows(in[0], columns); };
  c.flops = 3.0 * static_cast<double>(rows * columns);
  c.moved = 2.0 * static_cast<double>(rows * columns);
  return c;
}

// Rows 0 and 2 of four are zero: they stay zero and disturb nobody.
OpCase unit_with_zero_rows() {
  OpCase c = unit("unit length, zero rows", 2, 33);
  c.run = [](const std::vector<Tensor>& in) {
    return l2_normalize(rows_add(Tensor::zeros({4, 33}, in[0].dtype(), in[0].queue()), in[0], ids_of({1, 3})));
  };
  c.reference = [](const std::vector<Values>& in) {
    const Values z = unit_rows(in[0], 33);
    Values y(33, 0.0);
    y.insert(y.end(), z.begin(), z.begin() + 33), y.insert(y.end(), 33, 0.0), y.insert(y.end(), z.begin() + 33, z.end());
    return y;
  };
  return c;
}

}  // namespace

std::vector<OpCase> norm_cases() {
  std::vector<OpCase> cases = {
      make("layer norm, one row", {.lengths = {1}, .columns = 5}),
      make("layer norm, odd sizes", {.lengths = {33, 65}, .columns = 65}),
      make("residual", {.lengths = {65}, .columns = 33, .residual = true}),
      make("bias alone", {.lengths = {65}, .columns = 33, .bias = true}),
      make("residual and bias", {.lengths = {129}, .columns = 17, .residual = true, .bias = true}),
      make("dropout, ragged", {.lengths = ragged(5, 40, 3), .columns = 65, .dropout = 0.3f}),
      make("dropout, residual and bias", {.lengths = ragged(7, 35, 4), .columns = 33, .dropout = 0.1f, .residual = true, .bias = true}),
      make("dropout at more than 256 columns", {.lengths = {17, 3}, .columns = 300, .dropout = 0.02f, .residual = true, .bias = true}),
      make("sixteen columns at a time", {.lengths = ragged(5, 40, 5), .columns = 48, .dropout = 0.1f, .residual = true, .bias = true}),
      make("more columns than a warp takes at once", {.lengths = {19}, .columns = 560, .dropout = 0.1f, .residual = true}),
      make("no rows", {.lengths = {}, .columns = 5, .dropout = 0.1f, .residual = true, .bias = true}),
      its_own_residual("x is its own residual", 65),
      its_own_residual("x is its own residual, sixteen columns at a time", 48),
      used_twice("one norm after another with the same parameters", 33),
      used_twice("one norm after another with the same parameters, sixteen columns at a time", 48),
      far_from_zero(),
      unit("unit length, one element", 1, 1),
      unit("unit length, odd sizes", 65, 33),
      unit("unit length, no rows", 0, 7),
      unit_with_zero_rows(),
      make("small: 16 cells of 512, dropout",
           {.lengths = std::vector<std::int32_t>(16, 512), .columns = 256, .dropout = 0.02f, .residual = true, .bias = true}),
      make("langcell: 16 cells of 512, no dropout",
           {.lengths = std::vector<std::int32_t>(16, 512), .columns = 512, .residual = true, .bias = true}),
      make("langcell: 64 cells of 1024, no dropout",
           {.lengths = std::vector<std::int32_t>(64, 1024), .columns = 512, .residual = true, .bias = true}),
      make("langcell: 64 cells of 1024, dropout",
           {.lengths = std::vector<std::int32_t>(64, 1024), .columns = 512, .dropout = 0.02f, .residual = true, .bias = true}),
      make("langcell: 64 cells of 1024, LayerNorm alone", {.lengths = std::vector<std::int32_t>(64, 1024), .columns = 512}),
  };
  for (std::size_t i = cases.size() - 5; i < cases.size(); ++i) cases[i].benchmark_only = true;
  return cases;
}

std::vector<WrongCall> norm_wrong_calls() {
  const auto call = [](const std::string& name, auto spoil) {
    return WrongCall{"norm", name, [spoil] {
                       ResidualNorm a{.x = random_tensor({3, 5}, DType::f32, 1),
                                      .residual = random_tensor({3, 5}, DType::f32, 2),
                                      .bias = random_tensor({5}, DType::f32, 3),
                                      .weight = random_tensor({5}, DType::f32, 4),
                                      .shift = random_tensor({5}, DType::f32, 5)};
                       spoil(a);
                       residual_norm(a);
                     }};
  };
  return {
      call("a residual of other rows",
           [](ResidualNorm& a) {
             a.residual = random_tensor({4, 5}, DType::f32, 6);
           }),
      call("a residual of another type",
           [](ResidualNorm& a) {
             a.residual = random_tensor({3, 5}, DType::bf16, 6);
           }),
      call("a bias of another width", [](ResidualNorm& a) { a.bias = random_tensor({6}, DType::f32, 6); }),
      call("a weight of another width", [](ResidualNorm& a) { a.weight = random_tensor({6}, DType::f32, 6); }),
      call("no weight", [](ResidualNorm& a) { a.weight = {}; }),
      call("a shift in bf16", [](ResidualNorm& a) { a.shift = random_tensor({5}, DType::bf16, 6); }),
      call("x that is a vector", [](ResidualNorm& a) { a.x = random_tensor({5}, DType::f32, 6); }),
      call("dropout without a packing", [](ResidualNorm& a) { a.dropout.rate = 0.1f; }),
      call("dropout with a packing of other tokens", [](ResidualNorm& a) { a.dropout.rate = 0.1f, a.packing = packing_of({4}); }),
      call("a dropout rate of 1", [](ResidualNorm& a) { a.dropout.rate = 1, a.packing = packing_of({3}); }),
      {"norm", "unit length of a vector", [] { l2_normalize(random_tensor({5}, DType::f32, 1)); }},
      {"norm", "unit length of integers",
       [] {
         l2_normalize(ids_of({1, 2}));
       }},
  };
}

}  // namespace lc::test
