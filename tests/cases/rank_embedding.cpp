// rank_embedding against plain loops; the dropout mask is drawn here byte by byte from numeric.h.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "engine/tape.h"
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

struct Setting {
  std::vector<std::int32_t> lengths;
  std::int64_t words = 0, places = 0, types = 0, columns = 0;
  std::int32_t common = 1;  // every second token is one of so many ids, the others are any
  float dropout = 0;
};

std::vector<std::int32_t> ids_for(const Setting& s) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(std::accumulate(s.lengths.begin(), s.lengths.end(), 0)));
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const auto draw = static_cast<std::int64_t>(philox<10>({{static_cast<std::uint32_t>(t), 0, 0, 0}}, {{7, 0}}).word[0]);
    ids[t] = static_cast<std::int32_t>(draw % (t % 2 ? s.common : s.words));
  }
  return ids;
}

std::vector<std::int32_t> rows_by_id(const std::vector<std::int32_t>& ids) {
  std::vector<std::int32_t> rows(ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(),
                   [&](std::int32_t a, std::int32_t b) { return ids[static_cast<std::size_t>(a)] < ids[static_cast<std::size_t>(b)]; });
  return rows;
}

double kept(const Dropout& d, std::uint64_t key, std::int64_t row, std::int64_t column) {
  if (d.rate == 0) return 1;
  const Philox bits = hidden_bits(d, key, static_cast<int>(row), static_cast<int>(column / 16));
  const std::uint32_t byte = bits.word[column / 4 % 4] >> (8 * (column % 4)) & 255u;
  return byte < keep_threshold(d, key, 0, static_cast<int>(row / 16)) ? 1 / (1 - static_cast<double>(d.rate)) : 0;
}

Values reference(const Setting& s, const std::vector<std::int32_t>& ids, const Packing& packing, const Dropout& dropout,
                 const std::vector<Values>& in) {
  const std::int64_t columns = s.columns;
  const Values &table = in[0], &positions = in[1], &weight = in[2], &shift = in[3];
  Values y;
  for (std::size_t b = 0; b < s.lengths.size(); ++b) {
    for (std::int64_t row = 0; row < s.lengths[b]; ++row) {
      const std::int64_t id = ids[y.size() / static_cast<std::size_t>(columns)];
      Values x(static_cast<std::size_t>(columns));
      double mean = 0, variance = 0;
      for (std::int64_t c = 0; c < columns; ++c) {
        x[c] = table[id * columns + c] + positions[row * columns + c] + (s.types ? in[4][c] : 0);
        mean += x[c] / static_cast<double>(columns);
      }
      for (const double v : x) variance += (v - mean) * (v - mean) / static_cast<double>(columns);
      for (std::int64_t c = 0; c < columns; ++c) {
        const double factor = kept(dropout, packing.keys()[b], row, c);  // what is dropped is 0, whatever it was
        y.push_back(factor == 0 ? 0 : factor * ((x[c] - mean) / std::sqrt(variance + 1e-12) * weight[c] + shift[c]));
      }
    }
  }
  return y;
}

OpCase make(const std::string& name, const Setting& s) {
  const auto ids = ids_for(s);
  const PackingPtr packing = packing_of(s.lengths);
  const Dropout dropout{s.dropout, chance_of_step(3, 1, 5), 4};
  OpCase c;
  c.word = "rank_embedding", c.name = name;
  c.inputs = {{"table", {s.words, s.columns}, Role::parameter},
              {"positions", {s.places, s.columns}, Role::parameter},
              {"weight", {s.columns}, Role::vector, 0.2, 1},
              {"shift", {s.columns}, Role::vector, 0.2}};
  if (s.types) c.inputs.push_back({"type", {s.types, s.columns}, Role::parameter});
  struct Ids {
    Tensor ids, by_id;
  };
  c.run = [=, there = std::make_shared<Ids>()](const std::vector<Tensor>& in) {
    if (!there->ids) *there = {ids_of(ids), ids_of(rows_by_id(ids))};  // once: sorting is not what a benchmark should time
    return embed({.ids = there->ids,
                  .by_id = there->by_id,
                  .packing = packing,
                  .table = in[0],
                  .positions = in[1],
                  .type = s.types ? in[4] : Tensor(),
                  .weight = in[2],
                  .shift = in[3],
                  .dropout = dropout});
  };
  c.reference = [=](const std::vector<Values>& in) { return reference(s, ids, *packing, dropout, in); };
  const double elements = static_cast<double>(packing->tokens() * s.columns);
  c.flops = 10 * elements;
  c.moved = 4 * elements;
  return c;
}

}  // namespace

std::vector<OpCase> rank_embedding_cases() {
  std::vector<OpCase> cases = {
      make("one token", {.lengths = {1}, .words = 3, .places = 1, .types = 1, .columns = 5}),
      make("ragged, two types of which row 0 counts",
           {.lengths = ragged(5, 33, 1), .words = 65, .places = 40, .types = 2, .columns = 33, .common = 3}),
      make("dropout, no type", {.lengths = ragged(4, 35, 2), .words = 9, .places = 35, .columns = 65, .common = 2, .dropout = 0.3f}),
      make("dropout at full width", {.lengths = {17, 3}, .words = 9, .places = 17, .types = 1, .columns = 300, .dropout = 0.1f}),
      make("one id in many chunks", {.lengths = {301, 400}, .words = 11, .places = 400, .types = 1, .columns = 7}),
      make("no tokens in two sequences", {.lengths = {0, 0}, .words = 3, .places = 1, .types = 1, .columns = 5}),
      make("no sequences", {.lengths = {}, .words = 3, .places = 1, .types = 1, .columns = 5}),
      make("small, 16 cells of 512",
           {.lengths = std::vector<std::int32_t>(16, 512), .words = 25472, .places = 2048, .types = 1, .columns = 256, .dropout = 0.02f}),
      make("langcell, 64 cells of 1024",
           {.lengths = std::vector<std::int32_t>(64, 1024), .words = 25472, .places = 2048, .types = 1, .columns = 512, .dropout = 0.02f}),
  };
  for (std::size_t i = cases.size() - 2; i < cases.size(); ++i) cases[i].benchmark_only = true;
  return cases;
}

std::vector<WrongCall> rank_embedding_wrong_calls() {
  const auto call = [](const std::string& name, auto spoil) {
    return WrongCall{"rank_embedding", name, [spoil] {
                       Embed e{.ids = ids_of({0, 1, 1}),
                               .by_id = {},
                               .packing = packing_of({3}),
                               .table = random_tensor({4, 5}, DType::f32, 1),
                               .positions = random_tensor({3, 5}, DType::f32, 2),
                               .type = random_tensor({1, 5}, DType::f32, 3),
                               .weight = random_tensor({5}, DType::f32, 4),
                               .shift = random_tensor({5}, DType::f32, 5)};
                       spoil(e);
                       embed(e);
                     }};
  };
  return {
      call("no packing", [](Embed& e) { e.packing = nullptr; }),
      call("more ids than tokens",
           [](Embed& e) {
             e.ids = ids_of({0, 1, 1, 2});
           }),
      call("ids in float", [](Embed& e) { e.ids = random_tensor({3}, DType::f32, 6); }),
      call("a sequence longer than the positions",
           [](Embed& e) {
             e.positions = random_tensor({2, 5}, DType::f32, 6);
           }),
      call("positions of another width",
           [](Embed& e) {
             e.positions = random_tensor({3, 6}, DType::f32, 6);
           }),
      call("positions of another type",
           [](Embed& e) {
             e.positions = random_tensor({3, 5}, DType::bf16, 6);
           }),
      call("a type of another width",
           [](Embed& e) {
             e.type = random_tensor({1, 6}, DType::f32, 6);
           }),
      call("a weight of another width", [](Embed& e) { e.weight = random_tensor({6}, DType::f32, 6); }),
      call("a shift in bf16", [](Embed& e) { e.shift = random_tensor({5}, DType::bf16, 6); }),
      call("an order of another length",
           [](Embed& e) {
             e.by_id = ids_of({0, 1});
           }),
      call("a gradient without the order of ids",
           [](Embed& e) {
             Tape tape;
             e.table = tape.watch(e.table);
             embed(e);
           }),
  };
}

}  // namespace lc::test
