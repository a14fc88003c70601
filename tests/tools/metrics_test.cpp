// Figures of labels against literals computed once with scikit-learn 1.x (accuracy_score, f1_score, balanced_accuracy_score,
// confusion_matrix).
#include "tools/evaluation/metrics.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "tests/support/expect_error.h"

namespace lc::test {
namespace {

using Labels = std::vector<std::string>;

const Labels kTruth{"A", "A", "A", "B", "B", "C", "C", "C", "C", "D"};
const Labels kLabels{"A", "B", "A", "B", "B", "C", "A", "C", "E", "D"};

TEST(Metrics, AreThoseOfScikitLearn) {
  const Metrics m = annotation_metrics(kTruth, kLabels, {});
  EXPECT_EQ(m.n, 10u);
  EXPECT_DOUBLE_EQ(m.accuracy, 0.7);
  EXPECT_NEAR(m.macro_f1, 0.6266666666666667, 1e-12);  // E, which only the labels have, counts with F1 = 0
  EXPECT_NEAR(m.balanced_accuracy, 0.7916666666666666, 1e-12);
  EXPECT_DOUBLE_EQ(m.coverage, 1.0);
  EXPECT_EQ(m.labels, (Labels{"A", "B", "C", "D", "E"}));
  const std::vector<std::vector<size_t>> confusion{{2, 1, 0, 0, 0}, {0, 2, 0, 0, 0}, {1, 0, 2, 0, 1}, {0, 0, 0, 1, 0}, {0, 0, 0, 0, 0}};
  EXPECT_EQ(m.confusion, confusion);
  const double precision[] = {0.66666667, 0.66666667, 1, 1, 0}, recall[] = {0.66666667, 1, 0.5, 1, 0},
               f1[] = {0.66666667, 0.8, 0.66666667, 1, 0};
  const size_t support[] = {3, 2, 4, 1, 0};
  for (size_t k = 0; k < 5; ++k) {
    EXPECT_NEAR(m.per_class[k].precision, precision[k], 1e-8);
    EXPECT_NEAR(m.per_class[k].recall, recall[k], 1e-8);
    EXPECT_NEAR(m.per_class[k].f1, f1[k], 1e-8);
    EXPECT_EQ(m.per_class[k].support, support[k]);
  }
}

TEST(Metrics, CountACellWithoutLabelAsWrongButNotAsAClass) {
  for (const char* none : {"", "unassigned"}) {
    Labels labels = kLabels;
    labels[4] = none;
    const Metrics m = annotation_metrics(kTruth, labels, {});
    EXPECT_DOUBLE_EQ(m.accuracy, 0.6);
    EXPECT_NEAR(m.macro_f1, 0.5666666666666667, 1e-12);
    EXPECT_NEAR(m.balanced_accuracy, 0.6666666666666666, 1e-12);
    EXPECT_DOUBLE_EQ(m.coverage, 0.9);
    EXPECT_EQ(m.labels.size(), 5u);
    EXPECT_EQ(m.per_class[1].support, 2u);
  }
}

TEST(Metrics, LeaveCellsApartWhoseTruthHasNoText) {
  const Metrics m = annotation_metrics(kTruth, kLabels, Labels{"E", "B", "A", "D"});
  EXPECT_EQ(m.truth_outside_texts, 4u);
  EXPECT_EQ(m.n, 6u);
  EXPECT_NEAR(m.accuracy, 5.0 / 6, 1e-12);
  EXPECT_EQ(m.labels, (Labels{"B", "A", "D"})) << "in the order of the texts, only what occurs";
}

TEST(Metrics, LeaveOutCellsWithoutTruth) {
  Labels truth = kTruth;
  truth[0] = truth[1] = "";
  EXPECT_EQ(annotation_metrics(truth, kLabels, {}).n, 8u);
  EXPECT_EQ(annotation_metrics(truth, kLabels, {}).truth_outside_texts, 0u);
}

TEST(Metrics, RefuseWhenNothingCanBeScored) {
  const Labels none(3, ""), some(3, "A"), texts{"B"};
  EXPECT_TRUE(holds(message_of<DataError>([&] { annotation_metrics(none, some, {}); }), "none of 3 cells"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { annotation_metrics(some, some, texts); }), "3 have a true class without a text"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { annotation_metrics(some, texts, {}); }), "3 true labels but 1"));
}

TEST(Metrics, ComeBackFromJsonAsTheyWere) {
  const auto json = to_json(annotation_metrics(kTruth, kLabels, {}));
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys, (Labels{"n", "accuracy", "macro_f1", "balanced_accuracy", "coverage", "truth_outside_texts", "labels", "confusion",
                          "per_class"}));
  EXPECT_EQ(to_json(metrics_from_json(nlohmann::ordered_json::parse(json.dump()), "m.json")), json);
}

TEST(Metrics, FromDamagedJsonAreRefusedByName) {
  auto json = to_json(annotation_metrics(kTruth, kLabels, {}));
  json["confusion"].erase(0);
  EXPECT_TRUE(holds(message_of<DataError>([&] { metrics_from_json(json, "m.json"); }), "m.json"));
  json.erase("n");
  EXPECT_TRUE(holds(message_of<DataError>([&] { metrics_from_json(json, "m.json"); }), "m.json"));
}

}  // namespace
}  // namespace lc::test
