// The pages: well-formed, self-contained, and saying what is true.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "tools/report/annotated_parts.h"
#include "tools/report/html.h"
#include "tools/report/run_report.h"

namespace lc::test {
namespace {

using namespace lc::report;

// Every tag closed in order, every attribute quoted, no naked & or <. Returns what is wrong, "" when nothing is.
std::string unbalanced(const std::string& html) {
  std::vector<std::string> open;
  for (size_t i = 0; i < html.size(); ++i) {
    if (html[i] == '&' && html.substr(i, 12).find(';') == std::string::npos) return "naked & at " + html.substr(i, 30);
    if (html[i] != '<') continue;
    const size_t end = html.find('>', i);
    if (end == std::string::npos) return "open < at " + html.substr(i, 30);
    const std::string tag = html.substr(i + 1, end - i - 1);
    i = end;
    if (tag.starts_with("!DOCTYPE")) continue;
    if (std::ranges::count(tag, '"') % 2 != 0 || tag.find('<') != std::string::npos) return "quotes in <" + tag;
    const std::string name = tag.substr(tag[0] == '/' ? 1 : 0, tag.find_first_of(" /", 1) - (tag[0] == '/' ? 1 : 0));
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1))
        return "</" + tag.substr(1) + "> closes <" + (open.empty() ? "nothing" : open.back());
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
    if (name == "style" && tag[0] != '/') i = html.find("</style>", i) - 1;
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

void expect_self_contained(const std::string& html) {
  EXPECT_EQ(unbalanced(html), "");
  for (const char* forbidden : {"<script", "src=", "href=", "url(", "@import", "<link", "<img"})
    EXPECT_EQ(html.find(forbidden), std::string::npos) << forbidden;
  std::string rest = html;
  for (size_t at; (at = rest.find("http://www.w3.org/2000/svg")) != std::string::npos;) rest.erase(at, 26);  // a name, not an address
  EXPECT_EQ(rest.find("http"), std::string::npos);
}

size_t times(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

AnnotatedFile some_cells() {
  AnnotatedFile file;
  file.texts = file.categories = {"B <x>", "T & co", "never given"};
  for (int i = 0; i < 33; ++i) {
    file.names.push_back("cell-" + std::to_string(i));
    file.prediction.push_back(i == 7 ? "" : file.texts[static_cast<size_t>(i % 2)]);
    file.score.push_back(i == 7 ? NAN : 0.4);
    for (int d = 0; d < 5; ++d) file.z.push_back(i == 7 ? NAN : static_cast<float>(std::sin(i * 1.3 + d)));
  }
  file.width = 5;
  file.unassigned = 1;
  file.reasons = {{"no_genes", 1}};
  file.uns = {{"alpha", 0.1}, {"calibration", "none: x"}, {"id_match", 0.612}, {"counts_known", 0.958}, {"breadth", 0.783}};
  return file;
}

AnnotationReport some_report(const AnnotatedFile& file) {
  std::vector<std::string> truth = file.prediction;
  truth[7] = truth[4] = "T & co";
  AnnotationReport report;
  report.setting = "seen types, same donor";
  report.methods = {{"LangCell", "LangCell", annotation_metrics(truth, file.prediction, file.texts)},
                    {"majority class", "majority", annotation_metrics(truth, std::vector<std::string>(33, "B <x>"), file.texts)}};
  report.train_cells = 1234;
  report.labelling = labelling_of(file);
  report.map = cell_map_of(file, truth);
  return report;
}

TEST(AnnotationPage, IsWellFormedAndSelfContained) {
  const AnnotatedFile file = some_cells();
  expect_self_contained(page("a <b> & \"c\"", "s", annotation_sections(some_report(file)) + data_section(data_summary_of(file, "x.h5ad"))));
}

TEST(AnnotationPage, SaysWhatItMustSay) {
  const AnnotatedFile file = some_cells();
  const std::string html = annotation_sections(some_report(file)) + data_section(data_summary_of(file, "x.h5ad"));
  for (const char* part :
       {"seen types, same donor", "Unassigned: 1 of 33 cells (uncalibrated): no_genes 1",
        "comparable only within one list of texts, here 3 texts", "1,234 training cells", ".939", "Coloured by truth", "Coloured by label",
        "61.2 %", "95.8 %", "78.3 %", "B &lt;x&gt;", "T &amp; co", "majority class", "Cells without a label (1) stand in no column"}) {
    EXPECT_TRUE(holds(html, part));
  }
  EXPECT_EQ(times(html, "<title>cell-"), 2u * 32u) << "every cell with a z twice: by truth and by label";
}

TEST(AnnotationPage, WithoutTruthShowsLabelsOnly) {
  const AnnotatedFile file = some_cells();
  AnnotationReport report;
  report.labelling = labelling_of(file);
  report.map = cell_map_of(file, {});
  const std::string html = annotation_sections(report);
  expect_self_contained(page("t", "s", html));
  EXPECT_EQ(html.find("Confusion"), std::string::npos);
  EXPECT_EQ(html.find("Coloured by truth"), std::string::npos);
  EXPECT_TRUE(holds(html, "Coloured by label"));
}

TEST(AnnotationPage, WithoutASettingSaysThatItIsNotKnown) {
  const AnnotatedFile file = some_cells();
  AnnotationReport report = some_report(file);
  report.setting = "";
  EXPECT_TRUE(holds(annotation_sections(report), "Setting not stated"));
}

TEST(AnnotationPage, DoesNotClaimALengthOfAListItDoesNotKnow) {
  AnnotatedFile file = some_cells();
  file.texts.clear();
  const std::string html = annotation_sections(some_report(file));
  EXPECT_TRUE(holds(html, "within one list of texts: the same"));
  EXPECT_TRUE(holds(html, "never given")) << "categories of the column stand in";
}

TEST(AnnotationPage, ShowsAtMostSomeThousandCellsAndSaysSo) {
  AnnotatedFile file;
  file.categories = {"A"};
  for (size_t i = 0; i < kMapCells + 5; ++i) {
    file.names.push_back("c");
    file.prediction.push_back("A");
    for (size_t d = 0; d < 3; ++d) file.z.push_back(static_cast<float>((i * (d + 3)) % 17));
  }
  file.width = 3;
  AnnotationReport report;
  report.labelling = labelling_of(file);
  report.map = cell_map_of(file, {});
  EXPECT_TRUE(holds(annotation_sections(report), "1,503 of 3,005 cells, every 2th"));
}

constexpr const char* kLog =
    R"({"stage":1,"step":10,"loss":9.5,"mgm":9.0,"cell_cell":0.5,"cell_text":null,"matching":null,"samples_per_s":100,"tokens_per_s":20000}
{"stage":1,"step":20,"loss":8.5,"mgm":8.0,"cell_cell":0.5,"cell_text":null,"matching":null,"samples_per_s":100,"tokens_per_s":20000}
{"stage":2,"step":10,"loss":9.9,"mgm":7.0,"cell_cell":0.4,"cell_text":2.0,"matching":0.5,"samples_per_s":50,"tokens_per_s":9000}
{"event":"validate","stage":2,"step":10,"cell_text":2.5}
{"stage":2,"step":20,"loss":6.25,"mgm":6.0)";

TEST(TrainingLog, ReadsStepsAndValidationsAndForgivesACutLastLine) {
  const TrainingLog log = parse_training_log(kLog, "train.jsonl");
  ASSERT_EQ(log.steps.size(), 3u);
  ASSERT_EQ(log.validations.size(), 1u);
  EXPECT_EQ(log.steps[2].stage, 2);
  EXPECT_EQ(log.steps[2].values.at("cell_text"), 2.0);
  EXPECT_EQ(log.steps[0].values.count("cell_text"), 0u);
}

TEST(TrainingLog, RefusesADamagedLineByNumber) {
  EXPECT_TRUE(holds(message_of<DataError>([] { parse_training_log("{\"stage\":1,\"step\":1}\nnonsense\n{}\n", "train.jsonl"); }),
                    "train.jsonl: line 2"));
}

TEST(RunPage, ShowsEveryObjectiveThatWasActive) {
  const std::string html = training_section(parse_training_log(kLog, "train.jsonl"));
  expect_self_contained(page("t", "s", html));
  for (const char* part : {"Total loss", "Masked genes (MGM)", "Cell–cell contrast", "Cell–text contrast", "Matching", "9.5 → 8.5",
                           "Validation on the holdout (1 times)"}) {
    EXPECT_TRUE(holds(html, part));
  }
  EXPECT_EQ(times(html, "<figure>"), 5u);
}

TEST(RunPage, WithoutStepsSaysSo) { EXPECT_TRUE(holds(training_section({}), "No step has been logged yet")); }

TEST(RunFolder, IsReadWithConfigurationAndManifest) {
  const TemporaryFolder folder;
  std::ofstream(folder / "train.jsonl") << kLog;
  std::ofstream(folder / "config.resolved.toml") << "[data]\ncorpus = [\"gone.h5\"]\n[model]\npreset = \"<small>\"\n";
  std::ofstream(folder / "manifest.json") << R"({"version": "0.1.0", "machine": {"threads": 2}, "data": [{"path": "c.h5"}]})";
  const RunFolder run = read_run_folder(folder.path());
  const std::string html = provenance_section(run);
  expect_self_contained(page("t", "s", html));
  for (const char* part : {"&lt;small&gt;", "machine.threads", "data[0].path", "c.h5"}) EXPECT_TRUE(holds(html, part));
  EXPECT_TRUE(training_data(run).empty()) << "a corpus that is gone is left out";
}

TEST(RunFolder, IsRefusedWithoutALog) {
  const TemporaryFolder folder;
  EXPECT_TRUE(holds(message_of<DataError>([&] { read_run_folder(folder.path()); }), "no train.jsonl"));
}

TEST(TakeMetrics, ReadsTheFileOfTheDemoAndRefusesOthers) {
  const std::vector<std::string> truth{"A", "B", "B"}, labels{"A", "B", "A"};
  const auto metrics = to_json(annotation_metrics(truth, labels, {}));
  AnnotationReport report;
  take_metrics({{"langcell", metrics},
                {"majority", metrics},
                {"knn_pca", metrics},
                {"logistic_pca", metrics},
                {"split", {{"seed", 3}, {"n_train", 12}, {"n_test", 3}}}},
               "m", report);
  ASSERT_EQ(report.methods.size(), 4u);
  EXPECT_EQ(report.methods[0].name, "LangCell");
  EXPECT_EQ(report.seed, 3u);
  EXPECT_EQ(report.train_cells, 12u);
  AnnotationReport none;
  EXPECT_TRUE(holds(message_of<DataError>([&] { take_metrics({{"x", 1}}, "m.json", none); }), "m.json"));
}

TEST(Svg, EscapesWhatFilesBringAlong) {
  EXPECT_EQ(escaped("<a href=\"x\">&\x01"), "&lt;a href=&quot;x&quot;&gt;&amp;\xEF\xBF\xBD");
  Scatter chart;
  chart.x = {0, 1, NAN};
  chart.y = {1, 0, 1};
  chart.category = {0, -1, 0};
  chart.categories = {"<script>"};
  EXPECT_EQ(unbalanced(scatter(chart)), "");
  EXPECT_EQ(scatter(chart).find("<script"), std::string::npos);
}

TEST(Svg, TicksAreRoundAndInside) {
  EXPECT_EQ(axis_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(axis_ticks(0.4, 1.7, 5), (std::vector<double>{0.4, 0.6000000000000001, 0.8, 1.0, 1.2000000000000002, 1.4000000000000001, 1.6}));
  EXPECT_TRUE(axis_ticks(1, 1, 5).empty());
}

TEST(Svg, EmptyChartsAreStillPictures) {
  EXPECT_EQ(unbalanced(line_chart({})), "");
  EXPECT_EQ(unbalanced(scatter({})), "");
  EXPECT_EQ(unbalanced(confusion_map({})), "");
}

}  // namespace
}  // namespace lc::test
