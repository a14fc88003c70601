// pointwise: sums, also of column slices and of a tensor with itself. Activation gradients are judged through matmul's cases.
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

OpCase sum_of_two(const std::string& name, std::int64_t rows, std::int64_t columns) {
  OpCase c;
  c.word = "pointwise", c.name = name;
  c.inputs = {{"x", {rows, columns}}, {"y", {rows, columns}}};
  c.run = [](const std::vector<Tensor>& in) { return add(in[0], in[1]); };
  c.reference = [](const std::vector<Values>& in) {
    Values z = in[0];
    for (std::size_t i = 0; i < z.size(); ++i) z[i] += in[1][i];
    return z;
  };
  c.flops = static_cast<double>(rows * columns);
  c.moved = 3 * c.flops;
  return c;
}

// Columns [0, width) and the last `width` columns of one tensor: rows with gaps, and a gradient that is 0 between them.
OpCase sum_of_slices() {
  const std::int64_t rows = 33, columns = 71, width = 35;
  OpCase c;
  c.word = "pointwise", c.name = "two column slices of one tensor";
  c.inputs = {{"x", {rows, columns}}};
  c.run = [=](const std::vector<Tensor>& in) { return add(in[0].slice_columns(0, width), in[0].slice_columns(columns - width, width)); };
  c.reference = [=](const std::vector<Values>& in) {
    Values z;
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t j = 0; j < width; ++j) z.push_back(in[0][t * columns + j] + in[0][t * columns + columns - width + j]);
    }
    return z;
  };
  return c;
}

OpCase sum_with_itself() {
  OpCase c = sum_of_two("a tensor with itself", 3, 5);
  c.inputs.pop_back();
  c.run = [](const std::vector<Tensor>& in) { return add(in[0], in[0]); };
  c.reference = [](const std::vector<Values>& in) {
    Values z = in[0];
    for (double& v : z) v *= 2;
    return z;
  };
  return c;
}

}  // namespace

std::vector<OpCase> pointwise_cases() {
  std::vector<OpCase> cases = {
      sum_of_two("one element", 1, 1),
      sum_of_two("odd sizes", 33, 65),
      sum_of_two("rows of whole 16 bytes", 33, 40),
      sum_of_two("several chunks", 65, 1001),
      sum_of_two("no rows", 0, 5),
      sum_of_slices(),
      sum_with_itself(),
      sum_of_two("8192 tokens, 256 wide", 8192, 256),
  };
  cases.back().benchmark_only = true;
  return cases;
}

std::vector<WrongCall> pointwise_wrong_calls() {
  const auto call = [](const std::string& name, const Tensor& x, const Tensor& y) {
    return WrongCall{"pointwise", name, [=] { add(x, y); }};
  };
  return {
      call("other rows", random_tensor({3, 5}, DType::f32, 1), random_tensor({4, 5}, DType::f32, 2)),
      call("other columns", random_tensor({3, 5}, DType::f32, 1), random_tensor({3, 6}, DType::f32, 2)),
      call("other type", random_tensor({3, 5}, DType::f32, 1), random_tensor({3, 5}, DType::bf16, 2)),
      call("numbers that are not of a storage type", ids_of({1, 2, 3}), ids_of({1, 2, 3})),
      call("nothing to add", random_tensor({3, 5}, DType::f32, 1), Tensor()),
  };
}

}  // namespace lc::test
