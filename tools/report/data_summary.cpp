// Three figures with their thresholds, the funnel with shares, everything else as it was told.
#include "tools/report/data_summary.h"

#include "tools/report/html.h"

namespace lc::report {
namespace {

std::string coverage_table(const std::vector<CoverageFigures>& coverage) {
  if (coverage.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const auto& c : coverage) {
    rows.push_back({escaped(c.file), percent(c.id_match) + share_bar(c.id_match), percent(c.counts_known) + share_bar(c.counts_known),
                    percent(c.breadth) + share_bar(c.breadth)});
  }
  return table({{"coverage of", Align::left}, {"id match"}, {"counts known"}, {"breadth"}}, rows) +
         "<p class=\"detail\">Id match: share of the file&#8217;s genes that the gene vocabulary has (reported only). Counts known: share "
         "of all counts that lie in these genes "
         "(below 60 %: warning, below 30 %: refused). Breadth: share of the vocabulary that the file has (below 50 %: a gene subset or "
         "panel, ranks are not comparable).</p>\n";
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
  body += coverage_table(data.coverage) + funnel_table(data.funnel);
  for (const auto& warning : data.warnings) body += note(warning);
  return body.empty() ? "" : section(data.heading, body);
}

}  // namespace lc::report
