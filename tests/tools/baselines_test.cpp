// PCA and baselines against literals computed once with scikit-learn (PCA svd_solver="full", LogisticRegression newton-cg,
// KNeighborsClassifier) and against an exact eigen-decomposition (numpy eigvalsh).
#include "tools/evaluation/baselines.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <map>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "tools/evaluation/annotated_file.h"
#include "tools/evaluation/metrics.h"
#include "tools/evaluation/pca.h"

namespace lc::test {
namespace {

Matrix matrix_of(size_t columns, const std::vector<double>& values) {
  Matrix m(values.size() / columns, columns);
  m.values = values;
  return m;
}

SparseCounts sparse_of(size_t columns, const std::vector<float>& dense) {
  SparseCounts out{dense.size() / columns, columns, {0}, {}, {}};
  for (size_t r = 0; r < out.rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      if (dense[r * columns + c] == 0) continue;
      out.indices.push_back(static_cast<int32_t>(c));
      out.values.push_back(dense[r * columns + c]);
    }
    out.indptr.push_back(static_cast<int64_t>(out.indices.size()));
  }
  return out;
}

SparseCounts random_counts(size_t rows, size_t columns, unsigned seed) {
  std::vector<float> dense(rows * columns);
  for (auto& value : dense) {
    seed = seed * 1664525u + 1013904223u;
    value = (seed >> 16) % 5 < 3 ? 0.0f : static_cast<float>((seed >> 20) % 7);
  }
  return sparse_of(columns, dense);
}

const std::vector<float> kCounts{3, 0, 1, 0, 7, 0, 2, 5, 0, 1, 4, 1, 0, 0, 2, 1, 0, 9, 0, 0, 0, 6, 2, 0, 3, 2, 2, 2, 0, 2, 8, 0, 0, 0, 5};
const std::vector<float> kOther{1, 1, 1, 0, 1, 0, 0, 4, 0, 0};

TEST(TridiagonalEigen, IsExact) {
  const Eigen eigen = tridiagonal_eigen({2, -1, 0.5, 3}, {1, 0.5, -2});
  const double expected[] = {4.1212410515763, 2.3055739559230575, -0.41870901283511697, -1.5081059946642403};
  for (size_t k = 0; k < 4; ++k) {
    EXPECT_NEAR(eigen.values[k], expected[k], 1e-12);
    const auto v = eigen.vectors.row(k);
    EXPECT_NEAR(2 * v[0] + v[1], eigen.values[k] * v[0], 1e-12);
    EXPECT_NEAR(v[1] * 0.5 + 0.5 * v[2] - 2 * v[3], eigen.values[k] * v[2], 1e-12);
    EXPECT_NEAR(dot(v, v), 1, 1e-12);
  }
}

TEST(LeadingEigen, FindsRepeatedValuesAndStopsAtTheNullSpace) {
  const std::vector<double> diagonal{5, 0, 5, 2, 0, 0, 5, 0, 0};  // Lanczos from one vector sees 5 once unless it restarts
  auto product = [&](std::span<const double> x) {
    std::vector<double> y(x.begin(), x.end());
    for (size_t i = 0; i < y.size(); ++i) y[i] *= diagonal[i];
    return y;
  };
  const Eigen eigen = leading_eigen(product, diagonal.size(), {6, 3});
  const double expected[] = {5, 5, 5, 2, 0, 0};
  for (size_t k = 0; k < 6; ++k) EXPECT_NEAR(eigen.values[k], expected[k], 1e-9) << k;
  for (size_t k = 0; k < 4; ++k) {
    for (size_t j = 0; j < 4; ++j) EXPECT_NEAR(dot(eigen.vectors.row(k), eigen.vectors.row(j)), k == j ? 1 : 0, 1e-9) << k << " " << j;
  }
}

TEST(LeadingEigen, OfAMultipleOfTheIdentityIsThatMultiple) {
  auto product = [](std::span<const double> x) {
    std::vector<double> y(x.begin(), x.end());
    for (double& v : y) v *= 4;
    return y;
  };
  const Eigen eigen = leading_eigen(product, 5, {3, 1});  // every direction is exhausted at once
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_NEAR(eigen.values[k], 4, 1e-12);
    for (size_t j = 0; j < 3; ++j) EXPECT_NEAR(dot(eigen.vectors.row(k), eigen.vectors.row(j)), k == j ? 1 : 0, 1e-9);
  }
}

TEST(ExpressionPca, IsThatOfScikitLearn) {
  const ExpressionPca pca = ExpressionPca::fit(sparse_of(5, kCounts), {3, 2000, 0});
  EXPECT_EQ(pca.genes(), (std::vector<int32_t>{0, 1, 2, 4})) << "a gene without variance is not used";
  const double singular[] = {13.4659970009927, 10.719326939563713, 5.566803593617009};
  for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(pca.singular_values()[k], singular[k], 1e-10);
  const Matrix scores = pca.transform(sparse_of(5, kOther));
  const double expected[] = {-1.6174756597076894, -1.09139171587426, 2.867225108405204,
                             -2.5125957938353585, 8.754959690965881, -2.1704485954310804};
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(scores.values[i], expected[i], 1e-9);
}

TEST(ExpressionPca, TakesTheMostVariableGenesOfTheTrainingCells) {
  EXPECT_EQ(ExpressionPca::fit(sparse_of(5, kCounts), {2, 2, 0}).genes(), (std::vector<int32_t>{1, 2}));  // variances 13.4 15.3 13.5 0 8.0
}

TEST(ExpressionPca, HasZeroComponentsBeyondTheRank) {
  const ExpressionPca pca = ExpressionPca::fit(random_counts(3, 33, 5), {7, 2000, 0});
  EXPECT_GT(pca.singular_values()[1], 1);
  for (size_t k = 2; k < 7; ++k) EXPECT_NEAR(pca.singular_values()[k], 0, 1e-5);
  for (double score : pca.transform(random_counts(2, 33, 6)).values) EXPECT_TRUE(std::isfinite(score));
}

TEST(ExpressionPca, DoesNotDependOnTheNumberOfThreads) {
  const SparseCounts counts = random_counts(9001, 33, 1);
  omp_set_num_threads(1);
  const Matrix one = ExpressionPca::fit(counts, {5, 20, 0}).transform(counts);
  omp_set_num_threads(3);
  const Matrix three = ExpressionPca::fit(counts, {5, 20, 0}).transform(counts);
  omp_set_num_threads(omp_get_num_procs());
  EXPECT_EQ(one.values, three.values);
}

TEST(ExpressionPca, RefusesOneCell) {
  EXPECT_TRUE(holds(message_of<DataError>([] { ExpressionPca::fit(random_counts(1, 3, 1), {}); }), "1 training cells"));
}

TEST(PcaOfRows, IsThatOfScikitLearn) {
  const std::vector<float> z{.1f, .9f, -.3f, .4f, -.2f, .8f, -.7f, .5f, .2f, .3f, .3f, .3f, -.9f, -.1f, .6f};
  const DensePca pca = pca_of_rows(z, 3, 2);
  const double expected[] = {0.8812488812678902,  -0.24256700080702565, -0.27997381141486316, 0.8340851049607699,  -0.07910445857700826,
                             -0.5862019063911023, 0.2670700704618409,   0.3755684008512407,   -0.7892406817378599, -0.3808845986138827};
  for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(pca.scores.values[i], expected[i], 1e-6);
  EXPECT_NEAR(pca.explained[0], 0.5276355893579953, 1e-6);
  EXPECT_NEAR(pca.explained[1], 0.46957058630722964, 1e-6);
}

const Matrix kPoints = matrix_of(2, {0.5, 1.25, 1, 0.75, -1.5, 2, 2, -1, 2.5, -0.5, -1, -2, -0.25, -1.5, 3, 0.25, -2, 1});
const std::vector<int> kClasses{0, 0, 0, 1, 1, 2, 2, 1, 2};
const Matrix kQueries = matrix_of(2, {0, 0, 1.5, -.25, -1, .5, 4, -3});
const Matrix kQueriesOfThree = matrix_of(3, {0, 0.1, 0.2, -0.4, 0.3, 0.9});

TEST(LogisticRegression, GivesTheProbabilitiesOfScikitLearn) {
  const LabelledPoints train{kPoints, kClasses, 3};
  const std::map<double, std::vector<double>> expected{{1.0,
                                                        {0.38361264, 0.13089994, 0.48548742, 0.27732197, 0.58918257, 0.13349546, 0.38847315,
                                                         0.02626957, 0.58525728, 0.00135704, 0.99513884, 0.00350412}},
                                                       {10.0,
                                                        {0.3068377, 0.0323612, 0.6608011, 0.20857967, 0.74555401, 0.04586632, 0.21613148,
                                                         0.00089087, 0.78297765, 0.00000152, 0.99999026, 0.00000822}}};
  for (const auto& [inverse_penalty, probabilities] : expected) {
    LogisticOptions options;
    options.inverse_penalty = inverse_penalty;
    options.tolerance = 1e-9;
    const auto model = LogisticRegression::fit(train, options);
    EXPECT_TRUE(model.converged());
    const Matrix p = model.probabilities(kQueries);
    for (size_t i = 0; i < p.values.size(); ++i) EXPECT_NEAR(p.values[i], probabilities[i], 1e-7);
    EXPECT_EQ(model.predict(kQueries), (std::vector<int>{2, 1, 2, 1}));
  }
}

TEST(LogisticRegression, DoesNotDependOnTheNumberOfThreads) {
  Matrix points(5001, 3);
  std::vector<int> labels;
  for (size_t i = 0; i < points.values.size(); ++i) points.values[i] = std::sin(static_cast<double>(i * i % 1009));
  for (size_t r = 0; r < points.rows; ++r)
    labels.push_back(points.row(r)[0] + 0.3 * points.row(r)[2] > 0.2 ? 1 : points.row(r)[1] > 0 ? 2 : 0);
  const LabelledPoints train{points, labels, 3};
  omp_set_num_threads(1);
  const Matrix one = LogisticRegression::fit(train, {}).probabilities(kQueriesOfThree);
  omp_set_num_threads(3);
  const Matrix three = LogisticRegression::fit(train, {}).probabilities(kQueriesOfThree);
  omp_set_num_threads(omp_get_num_procs());
  EXPECT_EQ(one.values, three.values);
}

TEST(NearestNeighbours, VoteAsScikitLearnDoes) {
  const LabelledPoints train{kPoints, kClasses, 3};
  for (size_t k : {3u, 5u}) EXPECT_EQ(nearest_neighbours(train, kQueries, k), (std::vector<int>{0, 1, 0, 1}));
  EXPECT_EQ(nearest_neighbours(train, kQueries, 99), (std::vector<int>{0, 0, 0, 0}))
      << "more neighbours than cells: all vote, a tie goes to the first class";
}

TEST(MajorityClass, IsTheMostFrequentAndAtATieTheFirst) {
  EXPECT_EQ(majority_class(std::vector<int>{2, 1, 2, 0}, 3), (std::vector<int>{2, 2, 2}));
  EXPECT_EQ(majority_class(std::vector<int>{2, 1}, 1), (std::vector<int>{1}));
}

TEST(WithGenes, MatchesColumnsByNameAndKeepsEachCellsTotal) {
  const SparseCounts counts = sparse_of(3, {1, 2, 3, 0, 5, 0});
  const SparseCounts moved = with_genes(counts, {"a", "b", "c"}, {"c", "x", "a"});
  EXPECT_EQ(totals(moved), totals(counts));
  EXPECT_EQ(moved.columns, 4u);
  EXPECT_EQ(moved.indices, (std::vector<int32_t>{2, 3, 0, 3}));
}

struct Split {
  SparseCounts counts;
  std::vector<std::string> labels;
};

void append(Split& to, const SparseCounts& from, size_t row, const std::string& label) {
  for (auto i = static_cast<size_t>(from.indptr[row]); i < static_cast<size_t>(from.indptr[row + 1]); ++i) {
    to.counts.indices.push_back(from.indices[i]);
    to.counts.values.push_back(from.values[i]);
  }
  to.counts.indptr.push_back(static_cast<int64_t>(to.counts.indices.size()));
  ++to.counts.rows;
  to.labels.push_back(label);
}

TEST(Baselines, ReachOnRealCellsWhatScikitLearnReaches) {
  const auto file = data("data/pbmc3k.h5ad");
  const NamedCounts all = read_counts(file);
  const auto labels = read_labels(file, "cell_type", {});
  Split train{{0, all.counts.columns, {0}, {}, {}}, {}}, test = train;
  std::map<std::string, int> seen;
  for (size_t i = 0; i < labels.size(); ++i) append(seen[labels[i]]++ % 5 == 4 ? test : train, all.counts, i, labels[i]);
  ASSERT_EQ(test.labels.size(), 419u);
  const BaselineLabels found = baseline_labels(train.counts, train.labels, test.counts, {});
  const Metrics logistic = annotation_metrics(test.labels, found.logistic_pca, {}),
                knn = annotation_metrics(test.labels, found.knn_pca, {});
  EXPECT_NEAR(logistic.accuracy, 0.9021479713603818, 0.003);  // one cell of 419 may fall the other way
  EXPECT_NEAR(logistic.macro_f1, 0.9165989320611843, 0.003);
  EXPECT_NEAR(knn.accuracy, 0.8926014319809069, 0.003);
  EXPECT_NEAR(knn.macro_f1, 0.9073, 0.003);
  EXPECT_NEAR(annotation_metrics(test.labels, found.majority, {}).accuracy, 111.0 / 419, 1e-12);
}

}  // namespace
}  // namespace lc::test
