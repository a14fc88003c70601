// Three figures with their thresholds, the funnel with shares, everything else as it was told.
#include "tools/report/data_summary.h"

#include "tools/report/html.h"

namespace lc::report {
namespace {

std::string coverage_table(const DataSummary& data) {
  std::vector<std::vector<std::string>> rows;
  auto add = [&](const char* name, const std::optional<double>& share, const char* meaning) {
    if (share) rows.push_back({name, percent(*share) + share_bar(*share), meaning});
  };
  add("id match", data.id_match, "of the file&#8217;s genes are in the vocabulary (reported only)");
  add("counts known", data.counts_known, "of all counts lie in genes of the vocabulary (below 60 %: warning, below 30 %: refused)");
  add("breadth", data.breadth, "of the vocabulary&#8217;s genes are in the file (below 50 %: a gene subset or panel, ranks are not comparable)");
  return rows.empty() ? "" : table({{"figure", Align::left}, {"share"}, {"what it says", Align::left}}, rows);
}

std::string funnel_table(const std::vector<FunnelRow>& funnel) {
  if (funnel.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const auto& row : funnel) {
    const double share = funnel[0].cells > 0 ? static_cast<double>(row.cells) / static_cast<double>(funnel[0].cells) : 0;
    rows.push_back({escaped(row.name), grouped(row.cells), percent(share) + share_bar(share)});
  }
  return table({{"cells", Align::left}, {"number"}, {"share"}}, rows);
}

}  // namespace

std::string data_section(const DataSummary& data) {
  std::string body;
  if (!data.facts.empty()) body += facts(data.facts);
  body += coverage_table(data) + funnel_table(data.funnel);
  for (const auto& warning : data.warnings) body += note(warning);
  return body.empty() ? "" : section(data.name.empty() ? "Data" : "Data: " + data.name, body);
}

}  // namespace lc::report
