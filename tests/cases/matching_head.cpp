// matching_head against the plain two-class softmax.
#include <cmath>

#include "tests/support/op_case.h"

namespace lc::test {
namespace {

struct Setting {
  std::int64_t tokens = 0, columns = 0;
  std::vector<std::int32_t> rows, labels;
};

Values logits_of(const Setting& s, const std::vector<Values>& in) {
  Values logits;
  for (const std::int32_t row : s.rows) {
    for (int k = 0; k < 2; ++k) {
      logits.push_back(in[2][k]);
      for (std::int64_t c = 0; c < s.columns; ++c) logits.back() += in[0][row * s.columns + c] * in[1][k * s.columns + c];
    }
  }
  return logits;
}

double loss_of(const Setting& s, const std::vector<Values>& in) {
  const Values logits = logits_of(s, in);
  double loss = 0;
  for (std::size_t i = 0; i < s.rows.size(); ++i)
    loss += std::log(std::exp(logits[2 * i]) + std::exp(logits[2 * i + 1])) - logits[2 * i + s.labels[i]];
  return loss;
}

std::vector<Input> inputs_of(const Setting& s) {
  return {{"x", {s.tokens, s.columns}}, {"weight", {2, s.columns}, Role::parameter}, {"bias", {2}, Role::vector}};
}

OpCase loss_case(const std::string& name, const Setting& s) {
  OpCase c;
  c.word = "matching_head", c.name = name, c.inputs = inputs_of(s);
  c.run = [=](const std::vector<Tensor>& in) {
    return matching_head({.x = in[0], .rows = ids_of(s.rows), .weight = in[1], .bias = in[2], .labels = ids_of(s.labels)});
  };
  c.reference = [=](const std::vector<Values>& in) { return Values{loss_of(s, in)}; };
  c.flops = 4.0 * static_cast<double>(s.rows.size()) * static_cast<double>(s.columns);
  c.moved = static_cast<double>(s.rows.size()) * static_cast<double>(s.columns);
  return c;
}

// Two heads read the same rows: each gradient is added to what is there.
OpCase used_twice(const Setting& s) {
  OpCase c = loss_case("two heads of one x", s);
  c.run = [=](const std::vector<Tensor>& in) {
    const MatchingHead head{.x = in[0], .rows = ids_of(s.rows), .weight = in[1], .bias = in[2], .labels = ids_of(s.labels)};
    return add(matching_head(head), matching_head(head));
  };
  c.reference = [=](const std::vector<Values>& in) { return Values{2 * loss_of(s, in)}; };
  return c;
}

OpCase logits_case(const std::string& name, const Setting& s) {
  OpCase c;
  c.word = "matching_head", c.name = name, c.inputs = inputs_of(s);
  for (Input& input : c.inputs) input.differentiable = false;
  c.run = [=](const std::vector<Tensor>& in) {
    return matching_logits({.x = in[0], .rows = ids_of(s.rows), .weight = in[1], .bias = in[2], .labels = {}});
  };
  c.reference = [=](const std::vector<Values>& in) { return logits_of(s, in); };
  return c;
}

}  // namespace

std::vector<OpCase> matching_head_cases() {
  const Setting some{7, 33, {6, 0, 3}, {1, 0, 1}};
  Setting many{310, 5, {}, {}};
  for (std::int32_t i = 0; i < 301; ++i) many.rows.push_back(i), many.labels.push_back(i % 3 == 0);
  return {
      loss_case("one pair", {1, 3, {0}, {1}}),
      loss_case("one pair that does not match", {1, 3, {0}, {0}}),
      loss_case("rows out of order", some),
      loss_case("several chunks", many),
      loss_case("no pairs", {5, 3, {}, {}}),
      loss_case("no tokens", {0, 3, {}, {}}),
      logits_case("logits", some),
      logits_case("no logits", {5, 3, {}, {}}),
      used_twice(some),
  };
}

std::vector<WrongCall> matching_head_wrong_calls() {
  const auto call = [](const std::string& name, auto spoil) {
    return WrongCall{"matching_head", name, [spoil] {
                       MatchingHead m{.x = random_tensor({4, 5}, DType::f32, 1),
                                      .rows = ids_of({0, 2}),
                                      .weight = random_tensor({2, 5}, DType::f32, 2),
                                      .bias = random_tensor({2}, DType::f32, 3),
                                      .labels = ids_of({0, 1})};
                       spoil(m);
                       matching_head(m);
                     }};
  };
  return {
      call("three classes",
           [](MatchingHead& m) {
             m.weight = random_tensor({3, 5}, DType::f32, 4);
           }),
      call("a weight of another type",
           [](MatchingHead& m) {
             m.weight = random_tensor({2, 5}, DType::bf16, 4);
           }),
      call("another width",
           [](MatchingHead& m) {
             m.weight = random_tensor({2, 6}, DType::f32, 4);
           }),
      call("no bias", [](MatchingHead& m) { m.bias = Tensor(); }),
      call("fewer labels than rows", [](MatchingHead& m) { m.labels = ids_of({0}); }),
      call("no labels", [](MatchingHead& m) { m.labels = Tensor(); }),
      call("rows in float", [](MatchingHead& m) { m.rows = random_tensor({2}, DType::f32, 4); }),
  };
}

}  // namespace lc::test
