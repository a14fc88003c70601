// Columns to tokens, against the published code's tokens and against the obvious computation.
#include "models/langcell/data/cell_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "engine/errors.h"
#include "tests/support/expect_error.h"

namespace lc {
namespace {

struct Matrix {
  std::vector<std::int64_t> indptr = {0};
  std::vector<std::int32_t> columns;
  std::vector<float> counts;
  void add(std::int32_t column, float count) { columns.push_back(column), counts.push_back(count); }
  void end_cell() { indptr.push_back(static_cast<std::int64_t>(columns.size())); }
  CountBlock block() const { return {indptr, columns, counts}; }
};

GeneVocabulary four_genes() { return GeneVocabulary({{"ENSG01", "", 1.0}, {"ENSG02", "", 2.0}, {"ENSG03", "", 0.5}, {"ENSG04", "", 1.0}}); }

// The definition, cell by cell.
std::vector<std::int32_t> obvious(const GeneVocabulary& genes, const std::vector<std::string>& ids, const Matrix& m, size_t cell,
                                  size_t most) {
  std::map<std::int32_t, float> count_of;
  double total = 0;
  for (auto i = static_cast<size_t>(m.indptr[cell]); i < static_cast<size_t>(m.indptr[cell + 1]); ++i) {
    total += m.counts[i];
    const std::int32_t token = genes.token_of(ids[static_cast<size_t>(m.columns[i])]);
    if (token >= 0) count_of[token] += m.counts[i];
  }
  std::vector<std::pair<double, std::int32_t>> ranked;
  for (const auto& [token, count] : count_of) {
    const float cp10k = count / static_cast<float>(total) * 10000.0f;
    if (count != 0) ranked.emplace_back(-(static_cast<double>(cp10k) / genes.gene(token).median), token);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::int32_t> tokens;
  for (size_t i = 0; i < std::min(most, ranked.size()); ++i) tokens.push_back(ranked[i].second);
  return tokens;
}

TEST(CellTokens, RanksByValueOverMedianAndBreaksTiesByToken) {
  const std::vector<std::string> ids = {"ENSG04.2", "ENSG03", "other", "ENSG02", "ENSG01"};
  Matrix m;
  m.add(0, 2), m.add(1, 1), m.add(2, 50), m.add(3, 5), m.add(4, 2), m.end_cell();  // ENSG04 2, ENSG03 2, ENSG02 2.5, ENSG01 2
  m.end_cell();
  m.add(2, 7), m.end_cell();
  const CellTokenizer tokenizer(four_genes(), ids, 10);
  const CellTokens tokens = tokenizer.encode(m.block());
  EXPECT_EQ(tokens.offsets, (std::vector<std::int64_t>{0, 4, 4, 4}));
  EXPECT_EQ(tokens.tokens, (std::vector<std::int32_t>{3, 2, 4, 5}));
  EXPECT_EQ(tokenizer.known_genes(), 4);
  EXPECT_EQ(tokenizer.repeated_columns(), 0);
}

TEST(CellTokens, SumsTheColumnsOfOneGeneFirst) {
  const std::vector<std::string> ids = {"ENSG01", "ENSG04", "ENSG01.1"};
  Matrix m;
  m.add(0, 2), m.add(1, 3), m.add(2, 2), m.end_cell();  // ENSG01 4 before ENSG04 3
  const CellTokenizer tokenizer(four_genes(), ids, 10);
  EXPECT_EQ(tokenizer.encode(m.block()).tokens, (std::vector<std::int32_t>{2, 5}));
  EXPECT_EQ(tokenizer.repeated_columns(), 1);
}

TEST(CellTokens, EqualTheObviousComputationWithTiesRepeatsAndACut) {
  std::mt19937 random(11);
  std::vector<Gene> rows;
  std::vector<std::string> ids;
  for (int g = 0; g < 129; ++g) rows.push_back({"ENSG" + std::to_string(1000 + g), "", 0.25 * (1 + static_cast<double>(random() % 8))});
  for (int c = 0; c < 193; ++c) ids.push_back("ENSG" + std::to_string(1000 + random() % 160));  // unknown genes and repeats
  const GeneVocabulary genes(std::move(rows));
  Matrix m;
  for (int cell = 0; cell < 65; ++cell) {
    for (std::int32_t c = 0; c < 193; ++c)
      if (random() % 4 == 0) m.add(c, static_cast<float>(random() % 4));  // explicit zeros too
    m.end_cell();
  }
  for (const size_t most : {size_t{1}, size_t{33}, size_t{2047}}) {
    const CellTokens tokens = CellTokenizer(genes, ids, static_cast<std::int64_t>(most)).encode(m.block());
    for (size_t cell = 0; cell < 65; ++cell) {
      const auto got = tokens.cell(static_cast<std::int64_t>(cell));
      EXPECT_EQ(std::vector<std::int32_t>(got.begin(), got.end()), obvious(genes, ids, m, cell, most))
          << "cell " << cell << ", at most " << most;
    }
  }
}

TEST(CellTokens, RefusesAColumnOutsideTheMatrix) {
  const std::vector<std::string> ids = {"ENSG01"};
  Matrix m;
  m.add(1, 1), m.end_cell();
  const CellTokenizer tokenizer(four_genes(), ids, 10);
  EXPECT_TRUE(test::holds(test::message_of<DataError>([&] { tokenizer.encode(m.block()); }), "column 1 in a matrix of 1"));
}

TEST(Fingerprints, AreEqualForEqualCellsOfAnyColumnOrder) {
  const std::vector<std::string> ids = {"ENSG01", "ENSG02", "other", "ENSG04"}, turned = {"ENSG04", "ENSG02", "ENSG01", "ENSG01"};
  Matrix a, b;
  a.add(0, 3), a.add(1, 5), a.add(2, 9), a.add(3, 1), a.end_cell();
  a.add(0, 3), a.add(1, 4), a.add(3, 1), a.end_cell();
  a.add(0, 3), a.end_cell();
  b.add(0, 1), b.add(1, 5), b.add(2, 1), b.add(3, 2), b.end_cell();
  const auto first = CellTokenizer(four_genes(), ids, 10).fingerprints(a.block(), 2),
             second = CellTokenizer(four_genes(), turned, 10).fingerprints(b.block(), 2);
  EXPECT_NE(first[0], 0u);
  EXPECT_EQ(first[0], second[0]);
  EXPECT_NE(first[0], first[1]);
  EXPECT_EQ(first[2], 0u);  // too few genes to tell cells apart
}

TEST(SeenCells, KnowsEachNumberOnce) {
  SeenCells seen(1000);
  std::mt19937_64 random(5);
  std::vector<std::uint64_t> numbers;
  for (int i = 0; i < 1000; ++i) numbers.push_back(random() | 1);
  for (const auto number : numbers) EXPECT_TRUE(seen.insert(number));
  for (const auto number : numbers) EXPECT_FALSE(seen.insert(number));
}

}  // namespace
}  // namespace lc
