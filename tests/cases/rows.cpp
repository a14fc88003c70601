// rows: taken and added by index, with repeats.
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

struct Setting {
  std::int64_t rows = 0, columns = 0;
  std::vector<std::int32_t> index;
};

OpCase take(const std::string& name, const Setting& s) {
  OpCase c;
  c.word = "rows", c.name = name;
  c.inputs = {{"x", {s.rows, s.columns}}};
  c.run = [=](const std::vector<Tensor>& in) { return rows_take(in[0], ids_of(s.index)); };
  c.reference = [=](const std::vector<Values>& in) {
    Values y;
    for (const std::int64_t t : s.index) y.insert(y.end(), in[0].begin() + t * s.columns, in[0].begin() + (t + 1) * s.columns);
    return y;
  };
  c.moved = 2.0 * static_cast<double>(static_cast<std::int64_t>(s.index.size()) * s.columns);
  return c;
}

OpCase add_back(const std::string& name, const Setting& s) {
  const auto n = static_cast<std::int64_t>(s.index.size());
  OpCase c;
  c.word = "rows", c.name = name;
  c.inputs = {{"x", {s.rows, s.columns}}, {"rows", {n, s.columns}}};
  c.run = [=](const std::vector<Tensor>& in) { return rows_add(in[0], in[1], ids_of(s.index)); };
  c.reference = [=](const std::vector<Values>& in) {
    Values y = in[0];
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < s.columns; ++j) y[s.index[i] * s.columns + j] += in[1][i * s.columns + j];
    }
    return y;
  };
  c.flops = static_cast<double>(n * s.columns);
  c.moved = static_cast<double>((2 * s.rows + n) * s.columns);
  return c;
}

// One tensor gives rows and receives them: three gradients meet in it, one of them with repeats.
OpCase take_and_add() {
  OpCase c = take("rows of x added to x", {.rows = 5, .columns = 7, .index = {4, 1, 1}});
  c.run = [](const std::vector<Tensor>& in) { return rows_add(in[0], rows_take(in[0], ids_of({4, 1, 1})), ids_of({0, 0, 2})); };
  c.reference = [](const std::vector<Values>& in) {
    Values y = in[0];
    for (std::size_t j = 0; j < 7; ++j) y[j] += in[0][28 + j] + in[0][7 + j], y[14 + j] += in[0][7 + j];
    return y;
  };
  return c;
}

std::vector<std::int32_t> every(std::int32_t step, std::int32_t rows) {
  std::vector<std::int32_t> index;
  for (std::int32_t t = 0; t < rows; t += step) index.push_back(t);
  return index;
}

std::vector<std::int32_t> far_apart(std::int32_t count, std::int32_t rows) {
  std::vector<std::int32_t> index;
  for (std::int32_t i = 0; i < count; ++i) index.push_back(i * 29 % rows);
  return index;
}

}  // namespace

std::vector<OpCase> rows_cases() {
  std::vector<OpCase> cases = {
      take("take one of one", {.rows = 1, .columns = 1, .index = {0}}),
      take("take with repeats, out of order", {.rows = 33, .columns = 65, .index = {32, 0, 7, 7, 7, 1}}),
      take("take more rows than there are", {.rows = 3, .columns = 33, .index = std::vector<std::int32_t>(200, 2)}),
      take("take none", {.rows = 5, .columns = 7, .index = {}}),
      take("take none of none", {.rows = 0, .columns = 7, .index = {}}),
      add_back("add with repeats, out of order", {.rows = 33, .columns = 65, .index = {5, 31, 5, 0, 5}}),
      add_back("add 200 to one row", {.rows = 3, .columns = 33, .index = std::vector<std::int32_t>(200, 1)}),
      add_back("add with repeats far apart", {.rows = 67, .columns = 17, .index = far_apart(200, 67)}),
      add_back("add none", {.rows = 3, .columns = 5, .index = {}}),
      take_and_add(),
      take("CLS rows of 64 cells of 512", {.rows = 64 * 512, .columns = 256, .index = every(512, 64 * 512)}),
      take("masked rows of 16 cells of 512", {.rows = 16 * 512, .columns = 256, .index = every(7, 16 * 512)}),
  };
  for (std::size_t i = cases.size() - 2; i < cases.size(); ++i) cases[i].benchmark_only = true;
  return cases;
}

std::vector<WrongCall> rows_wrong_calls() {
  const Tensor x = random_tensor({3, 5}, DType::f32, 1);
  return {
      {"rows", "take by floats", [=] { rows_take(x, random_tensor({2}, DType::f32, 2)); }},
      {"rows", "take by nothing", [=] { rows_take(x, Tensor()); }},
      {"rows", "take of a vector", [=] { rows_take(random_tensor({3}, DType::f32, 2), ids_of({0})); }},
      {"rows", "add fewer rows than named",
       [=] {
         rows_add(x, random_tensor({1, 5}, DType::f32, 2), ids_of({0, 1}));
       }},
      {"rows", "add rows of another width",
       [=] {
         rows_add(x, random_tensor({2, 6}, DType::f32, 2), ids_of({0, 1}));
       }},
      {"rows", "add rows of another type",
       [=] {
         rows_add(x, random_tensor({2, 5}, DType::bf16, 2), ids_of({0, 1}));
       }},
  };
}

}  // namespace lc::test
