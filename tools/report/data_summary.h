// The data section of a report: what was read, how much of it the gene vocabulary knows, and which cells were dropped why.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lc::report {

struct FunnelRow {
  std::string name;  // "read", "kept", "dropped: no vocabulary gene"
  std::uint64_t cells = 0;
};

struct CoverageFigures {  // shares that the gene vocabulary knows of a file
  std::string file;
  double id_match = 0, counts_known = 0, breadth = 0;  // of the file's genes, of its counts, of the vocabulary
};

struct DataSummary {
  std::string heading;
  std::vector<std::pair<std::string, std::string>> facts;  // "cells" → "2,111"
  std::vector<CoverageFigures> coverage;                   // of each file
  std::vector<FunnelRow> funnel;                           // the first row is what all others are shares of
  std::vector<std::string> warnings;
};

std::string data_section(const DataSummary& data);  // "" when there is nothing to say

}  // namespace lc::report
