#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tools/commands/random.h"
#include "tools/commands/simulate_counts.h"
#include "tools/commands/simulate_tokens.h"

namespace lc {
namespace {

std::vector<SimulatedGene> genes(size_t count, const std::vector<SimulatedType>& types) {
  std::vector<SimulatedGene> out;
  for (const SimulatedType& type : types)
    for (const std::string& marker : type.markers) out.push_back({"", marker});
  while (out.size() < count) out.push_back({"", "G" + std::to_string(out.size())});
  return out;
}

SimulatedCounts simulate(std::uint64_t seed, int types = 5) {
  const std::vector<SimulatedType> wanted = simulated_types(types);
  return SimulatedCounts({301, seed, 3}, genes(1001, wanted), wanted);
}

TEST(Simulation, CellsDoNotDependOnTheDivisionIntoBlocks) {
  const SimulatedCounts simulated = simulate(3);
  const CsrBlock whole = simulated.cells(0, 301);
  std::vector<float> values;
  std::vector<std::int32_t> columns;
  for (std::uint64_t begin = 0; begin < 301; begin += 43) {
    const CsrBlock block = simulated.cells(begin, begin + 43);
    values.insert(values.end(), block.values.begin(), block.values.end());
    columns.insert(columns.end(), block.genes.begin(), block.genes.end());
  }
  EXPECT_EQ(values, whole.values);
  EXPECT_EQ(columns, whole.genes);
}

TEST(Simulation, TokensAreDistinctGenesAndNoTwoCellsAreAlike) {
  const std::vector<SimulatedType> types = simulated_types(3);
  std::vector<SimulatedGene> some = genes(401, types);
  for (size_t i = 0; i < some.size(); ++i) some[i].ensembl_id = "ENSG" + std::to_string(90000000000 + i);
  const SimulatedCounts patterns({33, 5, 2}, some, types);
  const GeneVocabulary vocabulary = vocabulary_of(patterns);
  const SimulatedTokens simulated(patterns, vocabulary, 5), other(patterns, vocabulary, 6);
  std::set<std::vector<std::int32_t>> met;
  std::vector<std::int32_t> cell, again;
  for (std::uint64_t c = 0; c < 500; ++c) {
    simulated.tokens(c, cell);
    const std::set<std::int32_t> distinct(cell.begin(), cell.end());
    EXPECT_EQ(distinct.size(), cell.size());
    EXPECT_GE(*distinct.begin(), GeneVocabulary::first_gene);
    EXPECT_LT(*distinct.rbegin(), vocabulary.cls());
    EXPECT_TRUE(met.insert(cell).second) << c;
    simulated.tokens(c, again);
    EXPECT_EQ(again, cell);
    EXPECT_LT(simulated.type(c), 3);
    EXPECT_LT(simulated.donor(c), 2);
  }
  other.tokens(499, again);
  EXPECT_NE(again, cell);
}

TEST(Simulation, TheSeedDecides) {
  EXPECT_EQ(simulate(3).cells(0, 301).values, simulate(3).cells(0, 301).values);
  EXPECT_NE(simulate(3).cells(0, 301).values, simulate(4).cells(0, 301).values);
  EXPECT_NE(simulate(3).type_of_cell(), simulate(4).type_of_cell());
}

TEST(Simulation, CountsSpreadMoreThanPoisson) {
  const SimulatedCounts simulated = simulate(1, 1);
  const CsrBlock block = simulated.cells(0, 301);
  std::vector<double> sum(1001, 0.0), squares(1001, 0.0);
  for (size_t i = 0; i < block.values.size(); ++i) {
    sum[static_cast<size_t>(block.genes[i])] += block.values[i];
    squares[static_cast<size_t>(block.genes[i])] += double{block.values[i]} * block.values[i];
  }
  int wide = 0, abundant = 0;
  for (size_t gene = 0; gene < sum.size(); ++gene) {
    const double mean = sum[gene] / 301, variance = squares[gene] / 301 - mean * mean;
    if (mean < 5) continue;
    ++abundant;
    wide += variance > 1.5 * mean ? 1 : 0;
  }
  EXPECT_GT(abundant, 20);
  EXPECT_GT(wide, abundant * 9 / 10);
}

TEST(Simulation, EveryTypeHasATextAndMarkersOfItsOwn) {
  const SimulatedCounts simulated = simulate(2, 19);  // more than there are names for
  std::set<std::string> texts, markers;
  size_t all = 0;
  for (const SimulatedType& type : simulated.types()) {
    texts.insert(type.text());
    markers.insert(type.markers.begin(), type.markers.end());
    all += type.markers.size();
    EXPECT_GE(type.markers.size(), 6u) << type.name;
  }
  EXPECT_EQ(texts.size(), 19u);
  EXPECT_EQ(markers.size(), all);
  const std::set<std::int32_t> present(simulated.type_of_cell().begin(), simulated.type_of_cell().end());
  EXPECT_EQ(present.size(), 19u);
}

TEST(RandomStream, HasTheMomentsItShould) {
  Random random(7, 1);
  double uniform = 0, normal = 0, square = 0, gamma = 0, small = 0;
  constexpr int n = 100'000;
  for (int i = 0; i < n; ++i) {
    uniform += random.uniform();
    const double x = random.normal();
    normal += x;
    square += x * x;
    gamma += random.gamma(4.0, 0.5);
    small += random.gamma(0.3, 2.0);
  }
  EXPECT_NEAR(uniform / n, 0.5, 0.005);
  EXPECT_NEAR(normal / n, 0, 0.015);
  EXPECT_NEAR(square / n, 1, 0.02);
  EXPECT_NEAR(gamma / n, 2.0, 0.02);
  EXPECT_NEAR(small / n, 0.6, 0.02);
}

TEST(RandomStream, ShufflesEveryElementEverywhere) {
  std::map<int, int> first;
  for (std::uint64_t stream = 0; stream < 3000; ++stream) {
    std::vector<int> values{0, 1, 2};
    Random(1, stream).shuffle(values);
    ++first[values[0]];
  }
  for (const auto& [value, count] : first) EXPECT_NEAR(count, 1000, 120) << value;
}

}  // namespace
}  // namespace lc
