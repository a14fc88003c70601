// cross_entropy against whole rows of logits in double.
#include <algorithm>
#include <cmath>

#include "tests/support/op_case.h"

namespace lc::test {
namespace {

struct Setting {
  std::int64_t rows = 0, columns = 0, vocabulary = 0, table_rows = 0;
  double scale = 1;
};

std::vector<std::int32_t> labels_for(const Setting& s) {
  std::vector<std::int32_t> labels(static_cast<std::size_t>(s.rows));
  for (std::int64_t i = 0; i < s.rows; ++i) labels[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 7919 % s.vocabulary);
  if (s.rows > 1) labels.back() = static_cast<std::int32_t>(s.vocabulary - 1);
  return labels;
}

double reference(const Setting& s, const std::vector<std::int32_t>& labels, const Values& x, const Values& table, const Values& bias) {
  double loss = 0;
  for (std::int64_t i = 0; i < s.rows; ++i) {
    Values logits(bias);
    double highest = -1e300, sum = 0;
    for (std::int64_t v = 0; v < s.vocabulary; ++v) {
      for (std::int64_t c = 0; c < s.columns; ++c) logits[v] += x[i * s.columns + c] * table[v * s.columns + c];
      highest = std::max(highest, logits[v]);
    }
    for (const double l : logits) sum += std::exp(l - highest);
    loss += highest + std::log(sum) - logits[labels[i]];
  }
  return loss;
}

OpCase make(const std::string& name, const Setting& s) {
  const auto labels = labels_for(s);
  OpCase c;
  c.word = "cross_entropy", c.name = name;
  c.inputs = {{"x", {s.rows, s.columns}, Role::activation, s.scale},
              {"table", {s.table_rows, s.columns}, Role::parameter},
              {"bias", {s.vocabulary}, Role::vector}};
  c.run = [=](const std::vector<Tensor>& in) { return cross_entropy(in[0], in[1], in[2], ids_of(labels)); };
  c.reference = [=](const std::vector<Values>& in) { return Values{reference(s, labels, in[0], in[1], in[2])}; };
  c.flops = 2.0 * static_cast<double>(s.rows * s.vocabulary * s.columns);
  c.moved = static_cast<double>((s.rows + s.vocabulary) * s.columns);
  return c;
}

}  // namespace

std::vector<OpCase> cross_entropy_cases() {
  std::vector<OpCase> cases = {
      make("one word to choose from", {1, 1, 1, 1}),
      make("small", {3, 5, 5, 5}),
      make("padded table", {33, 17, 65, 128}),
      make("several tiles and spans of the vocabulary", {5, 3, 2111, 2112, 0.5}),
      make("several blocks of rows", {131, 9, 33, 64}),
      make("more rows than one pass holds", {1027, 3, 17, 64}),
      make("logits in the hundreds", {7, 33, 65, 65, 30}),
      make("rows of whole 16 bytes", {67, 40, 200, 256}),
      make("rows of whole 16 bytes, several spans of the vocabulary", {5, 8, 4200, 4224, 0.5}),
      make("rows of whole 16 bytes, a depth of several steps", {35, 264, 130, 192, 0.2}),
      make("no rows", {0, 5, 7, 64}),
      make("small, masked genes of 16 cells of 256", {600, 256, 25427, 25472, 0.1}),
      make("langcell, masked genes of 16 cells of 2048", {4912, 512, 25427, 25472, 0.1}),
  };
  for (std::size_t i = cases.size() - 2; i < cases.size(); ++i) cases[i].benchmark_only = true;
  return cases;
}

std::vector<WrongCall> cross_entropy_wrong_calls() {
  const auto f = [](const Shape& shape, DType type = DType::f32) { return random_tensor(shape, type, 1); };
  const auto call = [=](const std::string& name, auto run) { return WrongCall{"cross_entropy", name, run}; };
  return {
      call("another width",
           [=] {
             cross_entropy(f({3, 4}), f({7, 5}), f({7}), ids_of({0, 1, 2}));
           }),
      call("another storage type",
           [=] {
             cross_entropy(f({3, 4}), f({7, 4}, DType::bf16), f({7}), ids_of({0, 1, 2}));
           }),
      call("fewer words than biases",
           [=] {
             cross_entropy(f({3, 4}), f({7, 4}), f({8}), ids_of({0, 1, 2}));
           }),
      call("too few labels",
           [=] {
             cross_entropy(f({3, 4}), f({7, 4}), f({7}), ids_of({0, 1}));
           }),
      call("labels in float",
           [=] {
             cross_entropy(f({3, 4}), f({7, 4}), f({7}), f({3}));
           }),
      call("no bias",
           [=] {
             cross_entropy(f({3, 4}), f({7, 4}), Tensor(), ids_of({0, 1, 2}));
           }),
  };
}

}  // namespace lc::test
