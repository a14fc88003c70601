// Attention: the obvious loops over whole rows of scores, with the dropout layout read off numeric.h one element at a time.
#include <algorithm>
#include <cmath>

#include "tests/support/op_case.h"

namespace lc::test {
namespace {

constexpr Dropout kTenth{0.1f, {{0x1234567u, 0x89abcdefu}}, 11};

double kept(const Dropout& d, std::uint64_t key, int head, int row, int column) {  // 0 or 1/(1 − rate)
  if (d.rate == 0) return 1;
  const int lane = row % 8 * 4 + column % 8 / 2, word = column % 32 / 8, byte = row % 16 / 8 * 2 + column % 2;
  const Philox bits = attention_bits(d, key, head, row / 16, attention_column_block_and_lane(column / 32, lane));
  const std::uint32_t draw = bits.word[word] >> (8 * byte) & 0xff;
  return draw < keep_threshold(d, key, head, row / 16) ? 1 / (1 - static_cast<double>(d.rate)) : 0;
}

struct Sizes {
  int heads = 1, width = 32;
  PackingPtr queries, keys;
  Dropout dropout{};
  std::int64_t columns() const { return std::int64_t{heads} * width; }
  std::int64_t key_sequence(std::int64_t b) const { return queries == keys || queries->kv_of().empty() ? b : queries->kv_of()[b]; }
};

// One query row: o = Σ_j softmax_j(q·k_j / √D) · kept_j · v_j.
void attend(const Sizes& s, std::int64_t b, int head, std::int64_t row, const std::vector<Values>& in, Values& o) {
  const std::int64_t c = s.columns(), at = head * s.width, query = (s.queries->offsets()[b] + row) * c + at;
  const std::int64_t first = s.keys->offsets()[s.key_sequence(b)], n = s.keys->offsets()[s.key_sequence(b) + 1] - first;
  Values p(static_cast<std::size_t>(n));
  double highest = -INFINITY, sum = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    for (int d = 0; d < s.width; ++d) p[j] += in[0][query + d] * in[1][(first + j) * c + at + d] / std::sqrt(static_cast<double>(s.width));
    highest = std::max(highest, p[j]);
  }
  for (double& x : p) x = std::exp(x - highest), sum += x;
  for (std::int64_t j = 0; j < n; ++j) {
    const double weight = p[j] / sum * kept(s.dropout, s.queries->keys()[b], head, static_cast<int>(row), static_cast<int>(j));
    for (int d = 0; d < s.width; ++d) o[query + d] += weight * in[2][(first + j) * c + at + d];
  }
}

Values reference(const Sizes& s, const std::vector<Values>& in) {
  Values o(static_cast<std::size_t>(s.queries->tokens() * s.columns()));
  for (std::int64_t b = 0; b < s.queries->sequences(); ++b) {
    for (int head = 0; head < s.heads; ++head) {
      for (std::int64_t row = 0; row < s.queries->offsets()[b + 1] - s.queries->offsets()[b]; ++row) attend(s, b, head, row, in, o);
    }
  }
  return o;
}

OpCase case_of(const std::string& name, const Sizes& s) {
  OpCase c;
  c.word = "attention", c.name = name;
  const Shape q{s.queries->tokens(), s.columns()}, k{s.keys->tokens(), s.columns()};
  c.inputs = {{"q", q}, {"k", k}, {"v", k}};
  c.run = [s](const std::vector<Tensor>& in) { return attention({in[0], in[1], in[2], s.heads, s.queries, s.keys, s.dropout}); };
  c.reference = [s](const std::vector<Values>& in) { return reference(s, in); };
  double scores = 0;
  for (std::int64_t b = 0; b < s.queries->sequences(); ++b) {
    const std::int64_t kv = s.key_sequence(b);
    scores +=
        static_cast<double>(s.queries->offsets()[b + 1] - s.queries->offsets()[b]) * (s.keys->offsets()[kv + 1] - s.keys->offsets()[kv]);
  }
  c.flops = 4 * scores * static_cast<double>(s.columns());
  c.backward_flops = 2.5 * c.flops;  // five products, as others count them; those that are done again do not count
  c.moved = 2.0 * static_cast<double>((q[0] + k[0]) * s.columns());
  return c;
}

// q, k, v as column slices of one product: strides, and one gradient for all three.
OpCase sliced(const Sizes& s) {
  OpCase c = case_of("self, slices of one product, dropout", s);
  const std::int64_t width = s.columns(), rows = s.queries->tokens();
  c.inputs = {{"qkv", Shape{rows, 3 * width}}};
  c.run = [s, width](const std::vector<Tensor>& in) {
    const auto part = [&](std::int64_t i) { return in[0].slice_columns(i * width, width); };
    return attention({part(0), part(1), part(2), s.heads, s.queries, s.keys, s.dropout});
  };
  c.reference = [s, width, rows](const std::vector<Values>& in) {
    std::vector<Values> parts(3);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::size_t i = 0; i < 3; ++i) {
        const auto begin = in[0].begin() + r * 3 * width + static_cast<std::int64_t>(i) * width;
        parts[i].insert(parts[i].end(), begin, begin + width);
      }
    }
    return reference(s, parts);
  };
  return c;
}

// Two attentions share q, k and v: each gradient is added to what is there.
OpCase used_twice(const Sizes& s) {
  OpCase c = case_of("two attentions of one q, k and v", s);
  Sizes other = s;
  other.dropout.site += 1;
  c.run = [s, other](const std::vector<Tensor>& in) {
    return add(attention({in[0], in[1], in[2], s.heads, s.queries, s.keys, s.dropout}),
               attention({in[0], in[1], in[2], s.heads, s.queries, s.keys, other.dropout}));
  };
  c.reference = [s, other](const std::vector<Values>& in) {
    Values y = reference(s, in);
    const Values z = reference(other, in);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += z[i];
    return y;
  };
  return c;
}

// All scores near −200: the softmax must not depend on where zero is.
OpCase far_from_zero() {
  const PackingPtr p = packing_of({70, 33});
  OpCase c = case_of("scores near −200", {1, 64, p, p, kTenth});
  c.inputs[0].offset = 5, c.inputs[0].scale = 0.3, c.inputs[1].offset = -5, c.inputs[1].scale = 1;
  return c;
}

OpCase large(const std::string& name, const Sizes& s) {
  OpCase c = case_of(name, s);
  c.benchmark_only = true;
  return c;
}

}  // namespace

std::vector<OpCase> attention_cases() {
  const PackingPtr some = packing_of({1, 33, 0, 65}), longer = packing_of({3, 257}), tiles = packing_of({413, 1, 64}),
                   one = packing_of({1});
  const PackingPtr queries = packing_of({7, 40, 0, 5}, 3), keys = packing_of({0, 150, 3, 1}, 4);
  // Nine keys that nobody reads, and a query without keys.
  const PackingPtr texts = packing_of({7, 40, 0, 40, 65, 1}, 5, {0, 0, 1, 0, 1, 3}), cells = packing_of({133, 20, 9, 0}, 6);
  const PackingPtr nothing = packing_of({0, 0}), none = packing_of({});
  const PackingPtr cell_512 = packing_of(std::vector<std::int32_t>(8, 512)), cell_2048 = packing_of({2048});
  const PackingPtr many_1024 = packing_of(std::vector<std::int32_t>(16, 1024)), many_2048 = packing_of(std::vector<std::int32_t>(8, 2048));
  const PackingPtr text_40 = packing_of(std::vector<std::int32_t>(12, 40), 1, std::vector<std::int32_t>(12, 0));
  std::vector<OpCase> cases = {
      case_of("self, ragged, 32 wide", {2, 32, some, some}),
      case_of("self, ragged, 64 wide, dropout", {3, 64, some, some, kTenth}),
      case_of("self, ragged, 128 wide, dropout", {1, 128, some, some, kTenth}),
      case_of("self, several blocks, dropout", {1, 32, longer, longer, kTenth}),
      case_of("self, several tiles, 64 wide", {1, 64, tiles, tiles}),
      case_of("self, several tiles, 64 wide, dropout", {1, 64, tiles, tiles, kTenth}),
      case_of("self, several tiles, 128 wide, dropout", {1, 128, longer, longer, kTenth}),
      case_of("cross, no keys, one key", {2, 64, queries, keys}),
      case_of("cross, no keys, one key, dropout", {2, 32, queries, keys, kTenth}),
      case_of("many queries of one key sequence", {1, 64, texts, cells}),
      case_of("many queries of one key sequence, dropout", {1, 64, texts, cells, kTenth}),
      case_of("cross, many queries of three keys, dropout", {4, 64, packing_of({300}), packing_of({3}), kTenth}),
      sliced({2, 32, some, some, kTenth}),
      used_twice({1, 64, some, some, kTenth}),
      far_from_zero(),
      case_of("only empty sequences", {1, 32, nothing, nothing, kTenth}),
      case_of("no sequences", {1, 32, none, none}),
      large("self, 8 × 512 tokens", {4, 64, cell_512, cell_512}),
      large("self, 8 × 512 tokens, dropout", {4, 64, cell_512, cell_512, {0.02f, {{1, 2}}, 3}}),
      large("self, 2048 tokens", {4, 64, cell_2048, cell_2048}),
      large("self, 16 × 1024 tokens, 8 heads", {8, 64, many_1024, many_1024}),
      large("self, 8 × 2048 tokens, 8 heads", {8, 64, many_2048, many_2048}),
      large("self, 8 × 2048 tokens, 8 heads, dropout", {8, 64, many_2048, many_2048, {0.02f, {{1, 2}}, 3}}),
      large("cross, 12 × 40 queries of one 2048 tokens", {12, 64, text_40, cell_2048}),
  };
  for (const std::int32_t length : {256, 512, 4096, 8192}) {  // as many tokens in all: speed over length
    const std::int32_t sequences = 16384 / length;
    const PackingPtr packing = packing_of(std::vector<std::int32_t>(static_cast<std::size_t>(sequences), length));
    const std::string name = "self, " + std::to_string(sequences) + " × " + std::to_string(length) + " tokens, 8 heads";
    cases.push_back(large(name, {8, 64, packing, packing}));
  }
  return cases;
}

std::vector<WrongCall> attention_wrong_calls() {
  const auto call = [](const char* name, const Attention& a) { return WrongCall{"attention", name, [a] { attention(a); }}; };
  const PackingPtr five = packing_of({2, 3}), four = packing_of({2, 2}), three = packing_of({1, 2, 2}),
                   outside = packing_of({2, 3}, 1, {0, 2});
  const auto x = [](std::int64_t rows, std::int64_t columns, DType type = DType::f32) {
    return random_tensor(Shape{rows, columns}, type, 1);
  };
  const Dropout all{1.0f, {}, 0}, far{0.1f, {}, 1u << 23};
  return {
      call("heads 48 wide", {x(5, 96), x(5, 96), x(5, 96), 2, five, five}),
      call("no heads", {x(5, 64), x(5, 64), x(5, 64), 0, five, five}),
      call("keys of another width", {x(5, 64), x(5, 128), x(5, 128), 2, five, five}),
      call("fewer values than keys", {x(5, 64), x(5, 64), x(4, 64), 1, five, five}),
      call("two types", {x(5, 64), x(5, 64, DType::bf16), x(5, 64), 1, five, five}),
      call("no packing", {x(5, 64), x(5, 64), x(5, 64), 1, nullptr, nullptr}),
      call("a packing of other queries", {x(5, 64), x(4, 64), x(4, 64), 1, four, four}),
      call("a packing of other keys", {x(5, 64), x(5, 64), x(5, 64), 1, five, four}),
      call("more key than query sequences", {x(5, 64), x(5, 64), x(5, 64), 1, five, three}),
      call("a key sequence that is not there", {x(5, 64), x(5, 64), x(5, 64), 1, outside, five}),
      call("everything dropped", {x(5, 64), x(5, 64), x(5, 64), 1, five, five, all}),
      call("a site beyond the counter", {x(5, 64), x(5, 64), x(5, 64), 1, five, five, far}),
  };
}

}  // namespace lc::test
