// What tells normalised values from corrected counts: within a cell all values of a normalised matrix are whole multiples of the smallest
// one (one count), of a log-normalised matrix the values of exp(x) − 1 are; this holds for gene subsets too, where row sums say nothing.
#include "tools/anndata/survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace lc {

namespace {

constexpr std::uint64_t kBlockRows = 512;
constexpr std::uint64_t kJudgedRows = 2048;  // rows after which a fractional matrix is judged
constexpr double kConstantSum = 1e-3;        // relative spread of row sums that no sequencing depth has
constexpr double kMostRows = 0.8;
constexpr float kLargestLog = 15.0f;  // exp(15) is above any count of one gene in one cell that is normalised to 10^4 … 10^6

std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x = (x + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

bool whole_multiples(std::span<const float> values, double smallest, bool exponential) {
  for (float value : values) {
    if (exponential && value > kLargestLog) return false;
    const double ratio = (exponential ? std::expm1(double{value}) : double{value}) / smallest;
    if (ratio < 1e4 && std::abs(ratio - std::round(ratio)) > 2e-3 * std::max(1.0, ratio * 1e-2)) return false;
  }
  return true;
}

struct Sums {  // spread of row sums
  double least = INFINITY, most = 0;
  void add(double sum) { least = std::min(least, sum), most = std::max(most, sum); }
  bool constant() const { return most > 0 && most - least <= kConstantSum * most; }
};

class Judge {  // of a matrix with fractional values
 public:
  void add_row(std::span<const float> values) {
    if (values.empty()) return;
    double plain = 0, exponential = 0;
    for (float value : values) {
      plain += value;
      exponential += std::expm1(double{value});
      largest_ = std::max(largest_, value);
    }
    plain_.add(plain);
    exponential_.add(exponential);
    ++rows_;
    const float smallest = *std::min_element(values.begin(), values.end());
    if (values.size() < 5) return;  // too few to tell multiples from chance
    ++judged_;
    if (whole_multiples(values, 1.0, true)) ++log_counts_;
    if (smallest != std::trunc(smallest) && whole_multiples(values, smallest, false)) ++plain_steps_;
    if (whole_multiples(values, std::expm1(double{smallest}), true)) ++exponential_steps_;
  }
  std::uint64_t rows() const { return rows_; }

  // Why these are not counts; nothing when they may be corrected counts.
  std::optional<std::string> normalisation() const {
    if (rows_ > 1 && plain_.constant()) return fmt::format("normalised: every cell sums to {:.6g}", plain_.most);
    if (rows_ > 1 && exponential_.constant())
      return fmt::format("log-normalised: exp(x) - 1 sums to {:.6g} in every cell", exponential_.most);
    if (steps(log_counts_)) return "the logarithm of counts: exp(x) - 1 takes whole numbers";
    if (steps(exponential_steps_)) return "log-normalised: within a cell exp(x) - 1 takes whole multiples of one value";
    if (steps(plain_steps_)) return "normalised: within a cell all values are whole multiples of one fraction";
    if (largest_ < kLargestLog) return fmt::format("transformed, probably by a logarithm: the largest value is {:.3g}", largest_);
    return std::nullopt;
  }

 private:
  bool steps(std::uint64_t rows) const { return judged_ > 0 && static_cast<double>(rows) >= kMostRows * static_cast<double>(judged_); }

  std::uint64_t rows_ = 0, judged_ = 0, log_counts_ = 0, plain_steps_ = 0, exponential_steps_ = 0;
  float largest_ = 0;
  Sums plain_, exponential_;
};

struct Fault {
  std::uint64_t cell, gene;
  float value;
};

std::string place(const Fault& fault) { return fmt::format("{:.6g} in cell {}, column {}", fault.value, fault.cell, fault.gene); }

}  // namespace

Survey survey(const CellMatrix& matrix, FractionalCounts fractional) {
  Survey out;
  out.gene_totals.assign(matrix.genes(), 0.0);
  out.gene_marks.assign(matrix.genes(), 0);
  std::optional<Fault> fraction;
  Judge judge;
  const auto refuse = [&](const std::string& reason) {
    out.verdict = Survey::Verdict::refused;
    out.reason = reason;
    return out;
  };
  for (std::uint64_t begin = 0; begin < matrix.cells(); begin += kBlockRows) {
    const CsrBlock block = matrix.read_rows(begin, std::min(begin + kBlockRows, matrix.cells()));
    for (size_t r = 0; r < block.rows(); ++r) {
      const auto genes = block.genes_of(r);
      const auto values = block.values_of(r);
      const std::uint64_t weight = mix(block.first + r);
      for (size_t i = 0; i < values.size(); ++i) {
        const Fault here{block.first + r, static_cast<std::uint64_t>(genes[i]), values[i]};
        if (!std::isfinite(values[i])) return refuse("not finite: " + place(here));
        if (values[i] < 0) return refuse("negative values, so scaled or residuals: " + place(here));
        if (!fraction && values[i] != std::trunc(values[i])) fraction = here;
        out.gene_totals[here.gene] += values[i];
        out.gene_marks[here.gene] += weight * static_cast<std::uint64_t>(values[i]);
      }
    }
    if (!fraction) continue;
    const bool enough = judge.rows() >= kJudgedRows;
    for (size_t r = 0; !enough && r < block.rows(); ++r) judge.add_row(block.values_of(r));
    const bool last = begin + kBlockRows >= matrix.cells();
    if (enough || (!last && judge.rows() < kJudgedRows)) continue;
    if (const auto reason = judge.normalisation()) return refuse(*reason + " (first fraction: " + place(*fraction) + ")");
    if (fractional == FractionalCounts::refuse) break;
  }
  if (fraction) {
    out.verdict = Survey::Verdict::corrected;
    out.reason = "fractions, from no known normalisation (" + place(*fraction) + "): corrected counts need --fractional-counts";
  }
  return out;
}

}  // namespace lc
