// infonce against the whole matrix of scores in double, and `merge` against the softmax over groups it stands for.
#include <algorithm>
#include <cmath>
#include <map>

#include "tests/support/op_case.h"

namespace lc::test {
namespace {

struct Setting {
  std::int64_t pairs = 0, columns = 0;
  ContrastGroups groups{};
};

double dot(const Values& a, std::int64_t i, const Values& b, std::int64_t j, std::int64_t columns) {
  double sum = 0;
  for (std::int64_t c = 0; c < columns; ++c) sum += a[i * columns + c] * b[j * columns + c];
  return sum;
}

// The place of each group in `unrelated`: the order in which groups first appear.
std::vector<std::int64_t> places(const ContrastGroups& g) {
  std::map<std::int32_t, std::int64_t> place;
  std::vector<std::int64_t> of;
  for (const std::int32_t group : g.group) of.push_back(place.try_emplace(group, static_cast<std::int64_t>(place.size())).first->second);
  return of;
}

// Cross-entropy of all rows of x choosing among the rows of y; `weighted`: each column counts 1 / size of its group.
double one_direction(const Setting& s, const Values& x, const Values& y, double scale, bool weighted) {
  const std::vector<std::int64_t> place = places(s.groups);
  const auto count = static_cast<std::int64_t>(std::sqrt(static_cast<double>(s.groups.unrelated.size())) + 0.5);
  const auto same = [&](std::int64_t i, std::int64_t j) { return i == j || (!place.empty() && place[i] == place[j]); };
  const auto size = [&](std::int64_t i) {
    double n = 0;
    for (std::int64_t j = 0; j < s.pairs; ++j) n += same(i, j);
    return n;
  };
  double loss = 0;
  for (std::int64_t i = 0; i < s.pairs; ++i) {
    double sum = 0, wanted = 0;
    for (std::int64_t j = 0; j < s.pairs; ++j) {
      const double score = scale * dot(x, i, y, j, s.columns);
      const bool ignored = same(i, j) ? i != j && s.groups.same == SamePairs::ignore
                                      : count > 0 && !s.groups.unrelated[static_cast<std::size_t>(place[i] * count + place[j])];
      if (!ignored) sum += std::exp(score) / (weighted ? size(j) : 1);
      if (s.groups.same == SamePairs::ignore ? i == j : same(i, j)) wanted += score / (s.groups.same == SamePairs::ignore ? 1 : size(i));
    }
    loss += std::log(sum) - wanted;
  }
  return loss;
}

OpCase make(const std::string& name, const Setting& s, double scale = 4) {
  OpCase c;
  c.word = "infonce", c.name = name;
  c.inputs = {{"a", {s.pairs, s.columns}, Role::activation, 0.4},
              {"b", {s.pairs, s.columns}, Role::activation, 0.4},
              {"scale", {1}, Role::vector, 0.1, scale}};
  c.run = [=](const std::vector<Tensor>& in) { return infonce(in[0], in[1], in[2], s.groups); };
  c.reference = [=](const std::vector<Values>& in) {
    return Values{0.5 * (one_direction(s, in[0], in[1], in[2][0], s.groups.same == SamePairs::merge) +
                         one_direction(s, in[1], in[0], in[2][0], false))};
  };
  c.flops = 4.0 * static_cast<double>(s.pairs * s.pairs * s.columns);
  c.moved = 2.0 * static_cast<double>(s.pairs * s.columns);
  return c;
}

// Where the texts of a group are one and the same, merge is a softmax over the groups: −s_ig + log Σ e^{s_g}.
OpCase merged_texts(const std::string& name, const std::vector<std::int32_t>& group, std::int64_t groups, std::int64_t columns) {
  const auto pairs = static_cast<std::int64_t>(group.size());
  OpCase c;
  c.word = "infonce", c.name = name;
  c.inputs = {{"a", {pairs, columns}, Role::activation, 0.4},
              {"texts", {groups, columns}, Role::activation, 0.4},
              {"scale", {1}, Role::vector, 0.1, 4}};
  c.run = [=](const std::vector<Tensor>& in) {
    return infonce(in[0], rows_take(in[1], ids_of(group)), in[2], {.group = group, .same = SamePairs::merge});
  };
  c.reference = [=](const std::vector<Values>& in) {
    double loss = 0;
    for (std::int64_t i = 0; i < pairs; ++i) {
      double over_groups = 0, over_cells = 0, wanted = 0, size = 0;
      for (std::int64_t g = 0; g < groups; ++g) over_groups += std::exp(in[2][0] * dot(in[0], i, in[1], g, columns));
      for (std::int64_t j = 0; j < pairs; ++j) {
        const double score = in[2][0] * dot(in[0], j, in[1], group[i], columns);
        over_cells += std::exp(score);
        if (group[i] == group[j]) wanted += score, size += 1;
      }
      loss += 0.5 * (std::log(over_groups) - in[2][0] * dot(in[0], i, in[1], group[i], columns) + std::log(over_cells) - wanted / size);
    }
    return Values{loss};
  };
  return c;
}

std::vector<std::int32_t> groups_of(std::int64_t pairs, std::int32_t groups) {
  std::vector<std::int32_t> group;
  for (std::int64_t i = 0; i < pairs; ++i) group.push_back(static_cast<std::int32_t>((i * i + i / 3) % groups * 10 + 5));
  return group;
}

// Neighbouring groups are related, in both directions.
ContrastGroups with_relations(std::vector<std::int32_t> group, SamePairs same) {
  ContrastGroups g{.group = std::move(group), .same = same};
  const auto place = places(g);
  const std::int64_t count = place.empty() ? 0 : *std::max_element(place.begin(), place.end()) + 1;
  for (std::int64_t i = 0; i < count * count; ++i) g.unrelated.push_back(std::abs(i / count - i % count) != 1);
  return g;
}

}  // namespace

std::vector<OpCase> infonce_cases() {
  std::vector<OpCase> cases = {
      make("no pairs", {0, 5}),
      make("one pair", {1, 5}),
      make("every pair its own group", {33, 17}),
      make("several tiles", {131, 9}),
      make("rows of whole 16 bytes, several tiles", {131, 24}),
      make("more pairs than the gradient holds at a time", {1500, 8}),
      make("as in the paper, 1/0.05", {33, 17}, 20),
      make("all of one group", {5, 5, {.group = {3, 3, 3, 3, 3}}}),
      make("small, merge", {5, 5, {.group = {3, 1, 3, 1, 2}, .same = SamePairs::merge}}),
      merged_texts("merge is a softmax over groups where texts are equal", {0, 1, 0, 2, 1, 0, 0, 2, 3}, 4, 5),
      make("small, unrelated", {5, 5, with_relations({3, 1, 3, 1, 2}, SamePairs::positive)}),
  };
  const std::pair<const char*, SamePairs> ways[] = {
      {"positive", SamePairs::positive}, {"merge", SamePairs::merge}, {"ignore", SamePairs::ignore}};
  for (const auto& [name, same] : ways) {
    cases.push_back(make(std::string(name) + ", groups over several tiles", {67, 9, {.group = groups_of(67, 7), .same = same}}));
    cases.push_back(make(std::string(name) + ", related groups leave the denominator", {33, 17, with_relations(groups_of(33, 5), same)}));
  }
  cases.push_back(make("512 pairs", {512, 256}, 20));
  cases.push_back(make("4,096 pairs", {4096, 256}, 20));
  for (std::size_t i = cases.size() - 2; i < cases.size(); ++i) cases[i].benchmark_only = true;
  return cases;
}

std::vector<WrongCall> infonce_wrong_calls() {
  const auto f = [](const Shape& shape, DType type = DType::f32) { return random_tensor(shape, type, 1); };
  const auto call = [](const std::string& name, auto run) { return WrongCall{"infonce", name, run}; };
  return {
      call("another number of rows",
           [=] {
             infonce(f({3, 4}), f({4, 4}), f({1}));
           }),
      call("another width",
           [=] {
             infonce(f({3, 4}), f({3, 5}), f({1}));
           }),
      call("two storage types",
           [=] {
             infonce(f({3, 4}), f({3, 4}, DType::bf16), f({1}));
           }),
      call("two scales",
           [=] {
             infonce(f({3, 4}), f({3, 4}), f({2}));
           }),
      call("too few groups",
           [=] {
             infonce(f({3, 4}), f({3, 4}), f({1}), {.group = {0, 1}});
           }),
      call("relations of too few groups",
           [=] {
             infonce(f({3, 4}), f({3, 4}), f({1}), {.group = {0, 1, 2}, .unrelated = {1, 1, 1, 1}});
           }),
  };
}

}  // namespace lc::test
