// Is a matrix counts? Every value is looked at; the first value that says no ends the reading.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tools/anndata/matrix.h"

namespace lc {

enum class FractionalCounts : std::uint8_t { refuse, accept };

struct Survey {
  enum class Verdict : std::uint8_t { counts, corrected, refused };
  Verdict verdict = Verdict::counts;
  std::string reason;                     // why it is not counts, with the place of the first such value
  std::vector<double> gene_totals;        // per column
  std::vector<std::uint64_t> gene_marks;  // per column: its counts weighted by cell, modulo 2^64; equal marks and totals: equal columns
};

// corrected: values ≥ 0, not integer, from no known normalisation (SoupX, CellBender …); read to the end only with
// FractionalCounts::accept.
Survey survey(const CellMatrix& matrix, FractionalCounts fractional);

}  // namespace lc
