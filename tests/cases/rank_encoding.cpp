// rank_encoding against a sort of the whole cell; exact, because the order is decided by the last bit. Numbers leave as floats.
#include <algorithm>
#include <bit>
#include <map>

#include "tests/support/op_case.h"

namespace lc::test {
namespace {

struct Cells {
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> columns{}, token_of_column{};
  std::vector<float> counts{}, n_counts{};
  std::vector<double> medians{};
  std::int64_t max_tokens = 0;
  std::int64_t cells() const { return static_cast<std::int64_t>(n_counts.size()); }
};

// The cells where the test's queue says, and the kernel on them.
struct Encoder {
  Tensor tokens, lengths, indptr, columns, counts, n_counts, token_of_column, median_of_token;
  kernels::RankEncoding e;

  void run() const {
    on(tokens.queue(), [&]<Device D>() { kernels::rank_encoding<D>(tokens.queue(), e); });
  }
};

Encoder upload(const Cells& c) {
  const Queue queue = test_queue();
  std::vector<std::int64_t> medians;  // their bits: no tensor holds doubles
  for (const double m : c.medians) medians.push_back(std::bit_cast<std::int64_t>(m));
  const auto places = static_cast<std::size_t>(c.cells() * c.max_tokens);
  Encoder encoder{.tokens = Tensor::from(std::vector<std::int32_t>(places, -1), queue),
                  .lengths = Tensor::from(std::vector<std::int32_t>(c.n_counts.size(), -1), queue),
                  .indptr = Tensor::from(c.indptr, queue),
                  .columns = Tensor::from(c.columns, queue),
                  .counts = Tensor::from(c.counts, queue),
                  .n_counts = Tensor::from(c.n_counts, queue),
                  .token_of_column = Tensor::from(c.token_of_column, queue),
                  .median_of_token = Tensor::from(medians, queue),
                  .e = {}};
  std::int64_t longest = 0;
  for (std::size_t i = 1; i < c.indptr.size(); ++i) longest = std::max(longest, c.indptr[i] - c.indptr[i - 1]);
  encoder.e = {.cells = c.cells(),
               .nonzeros = c.indptr.back(),
               .longest = longest,
               .indptr = encoder.indptr.data<std::int64_t>(),
               .columns = encoder.columns.data<std::int32_t>(),
               .counts = encoder.counts.data<float>(),
               .n_counts = encoder.n_counts.data<float>(),
               .token_of_column = encoder.token_of_column.data<std::int32_t>(),
               .median_of_token = static_cast<const double*>(encoder.median_of_token.raw()),
               .max_tokens = c.max_tokens,
               .tokens = encoder.tokens.data<std::int32_t>(),
               .lengths = encoder.lengths.data<std::int32_t>()};
  return encoder;
}

Tensor run(const Cells& c) {
  const Encoder encoder = upload(c);
  encoder.run();
  const std::vector<std::int32_t> some = encoder.tokens.to_host<std::int32_t>(), rest = encoder.lengths.to_host<std::int32_t>();
  std::vector<float> all(some.begin(), some.end());
  all.insert(all.end(), rest.begin(), rest.end());
  return Tensor::from(all);
}

Values reference(const Cells& c) {
  Values tokens, lengths;
  for (std::int64_t cell = 0; cell < c.cells(); ++cell) {
    std::map<std::int32_t, float> count_of;
    for (std::int64_t i = c.indptr[cell]; i < c.indptr[cell + 1]; ++i) {
      const std::int32_t token = c.token_of_column[c.columns[i]];
      if (token >= 0) count_of[token] += c.counts[i];
    }
    std::vector<std::pair<double, std::int32_t>> ranked;  // (−value, token): ascending
    for (const auto& [token, count] : count_of) {
      const float share = count / c.n_counts[cell], scaled = share * 10000.0f;
      if (count != 0) ranked.emplace_back(-(static_cast<double>(scaled) / c.medians[token]), token);
    }
    std::sort(ranked.begin(), ranked.end());
    ranked.resize(std::min(ranked.size(), static_cast<std::size_t>(c.max_tokens)));
    for (std::int64_t k = 0; k < c.max_tokens; ++k) tokens.push_back(k < static_cast<std::int64_t>(ranked.size()) ? ranked[k].second : -1);
    lengths.push_back(static_cast<double>(ranked.size()));
  }
  tokens.insert(tokens.end(), lengths.begin(), lengths.end());
  return tokens;
}

// Small counts and few different medians: many ties. Every ninth column is unknown, every seventh shares the token of its neighbour.
Cells random_cells(std::int64_t cells, std::int32_t genes, std::int64_t max_tokens, std::uint32_t seed) {
  Cells c{.max_tokens = max_tokens};
  std::uint32_t drawn = 0;
  const auto draw = [&](std::uint32_t below) { return philox<10>({{drawn++, 0, 0, 0}}, {{seed, 1}}).word[0] % below; };
  for (std::int32_t g = 0; g < genes; ++g) {
    c.token_of_column.push_back(g % 9 == 4 ? -1 : g % 7 == 6 ? c.token_of_column.back() : 2 + (g * 5) % genes);
  }
  for (std::int32_t t = 0; t < genes + 2; ++t) c.medians.push_back(0.7 + 0.9 * draw(3));
  for (std::int64_t cell = 0; cell < cells; ++cell) {
    double sum = 0;
    for (std::int32_t g = 0; cell % 5 != 3 && g < genes; ++g) {
      if (draw(3) == 0) continue;
      c.columns.push_back((g * 11) % genes);  // any order
      c.counts.push_back(static_cast<float>(draw(6)));
      sum += c.counts.back();
    }
    c.indptr.push_back(static_cast<std::int64_t>(c.columns.size()));
    c.n_counts.push_back(static_cast<float>(sum));
  }
  return c;
}

OpCase make(const std::string& name, const Cells& cells) {
  OpCase c;
  c.word = "rank_encoding", c.name = name;
  c.run = [=](const std::vector<Tensor>&) { return run(cells); };
  c.reference = [=](const std::vector<Values>&) { return reference(cells); };
  c.tolerance = c.tolerance_bf16 = 0;
  c.prepare = [=](const std::vector<Tensor>&) -> std::function<void()> { return [encoder = upload(cells)] { encoder.run(); }; };
  c.bytes = 8.0 * static_cast<double>(cells.columns.size());
  return c;
}

OpCase many_times(const std::string& name, const Cells& cells, int times) {
  OpCase c = make(name, cells);
  c.bytes *= times;
  c.prepare = [=](const std::vector<Tensor>&) -> std::function<void()> {
    Cells many{.indptr = {0}, .token_of_column = cells.token_of_column, .medians = cells.medians, .max_tokens = cells.max_tokens};
    for (int i = 0; i < times; ++i) {
      for (std::size_t cell = 1; cell < cells.indptr.size(); ++cell) {
        many.indptr.push_back(static_cast<std::int64_t>(many.columns.size()) + cells.indptr[cell]);
      }
      many.columns.insert(many.columns.end(), cells.columns.begin(), cells.columns.end());
      many.counts.insert(many.counts.end(), cells.counts.begin(), cells.counts.end());
      many.n_counts.insert(many.n_counts.end(), cells.n_counts.begin(), cells.n_counts.end());
    }
    return [encoder = upload(many)] { encoder.run(); };
  };
  return c;
}

}  // namespace

std::vector<OpCase> rank_encoding_cases() {
  // 3 of 3 over median 3, and 1 of 3 over median 1: equal in exact arithmetic, the first larger in double, the second larger in float.
  const Cells last_bit{.indptr = {0, 2},
                       .columns = {0, 1},
                       .token_of_column = {2, 3},
                       .counts = {3, 1},
                       .n_counts = {3},
                       .medians = {1, 1, 3, 1},
                       .max_tokens = 2};
  std::vector<OpCase> cases = {
      make("no cells", random_cells(0, 5, 3, 1)),
      make("ties, unknown and repeated columns, empty cells", random_cells(33, 65, 100, 2)),
      make("cut to the best", random_cells(17, 257, 33, 3)),
      make("nothing kept", random_cells(3, 9, 0, 4)),
      make("the last bit decides", last_bit),
      make("more genes than shared memory holds", random_cells(3, 9000, 60, 6)),
      make("256 cells", random_cells(256, 2000, 2047, 5)),
      many_times("4,096 cells", random_cells(256, 2000, 2047, 5), 16),
  };
  for (std::size_t i = cases.size() - 2; i < cases.size(); ++i) cases[i].benchmark_only = true;
  return cases;
}

std::vector<WrongCall> rank_encoding_wrong_calls() { return {}; }

}  // namespace lc::test
