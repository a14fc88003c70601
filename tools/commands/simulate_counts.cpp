#include "tools/commands/simulate_counts.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "tools/commands/random.h"

namespace lc {

namespace {

// Streams of chance: one per purpose, far apart from the cells' own (the cell's number).
enum Stream : std::uint64_t {
  kBase = std::uint64_t{1} << 40,
  kMarkers = kBase << 1,
  kLineage = kBase << 2,
  kType = kBase << 3,
  kDonor = kBase << 4,
  kCells = kBase << 5
};

constexpr double kMedianDepth = 2200, kDepthSpread = 0.35, kDonorDepthSpread = 0.2;
constexpr double kBaseSpread = 2.0;          // of a gene's log mean: a few genes hold most counts
constexpr double kDonorSpread = 0.15;        // batch shift of every gene
constexpr double kAmbient = 0.03;            // share of a cell's counts that comes from the others
constexpr double kMarkerShare = 1.0 / 1500;  // of a cell's counts, in its own type
constexpr double kMarkerElsewhere = 0.03;    // times that in the other types
constexpr size_t kDrawnMarkers = 6;

// Negative-binomial draw: by inversion where small, else as a Poisson draw of a gamma rate.
std::uint32_t negative_binomial(Random& random, double mean, double dispersion) {
  if (mean < 10) {
    const double size = 1 / dispersion, failure = mean / (size + mean);
    double probability = std::exp(-size * std::log1p(dispersion * mean)), left = random.uniform() - probability;
    std::uint32_t count = 0;
    while (left > 0 && count < 1000) {
      probability *= failure * (size + count) / (count + 1);
      ++count;
      left -= probability;
    }
    return count;
  }
  const double rate = random.gamma(1 / dispersion, dispersion * mean);
  if (rate >= 30) return static_cast<std::uint32_t>(std::max(0.0, std::round(rate + std::sqrt(rate) * random.normal())));
  std::uint32_t count = 0;
  for (double product = random.uniform(), limit = std::exp(-rate); product > limit; product *= random.uniform()) ++count;
  return count;
}

// Shares that differ by some factor but leave nobody without cells.
std::vector<double> uneven_shares(Random& random, size_t count, double spread) {
  std::vector<double> shares(count);
  for (double& share : shares) share = 0.25 + std::exp(spread * random.normal());
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= sum;
  return shares;
}

std::int32_t drawn(Random& random, const std::vector<double>& shares) {
  double left = random.uniform();
  for (size_t i = 0; i + 1 < shares.size(); ++i)
    if ((left -= shares[i]) < 0) return static_cast<std::int32_t>(i);
  return static_cast<std::int32_t>(shares.size() - 1);
}

}  // namespace

SimulatedCounts::SimulatedCounts(const SimulationSize& size, std::vector<SimulatedGene> genes, std::vector<SimulatedType> types)
    : size_(size), genes_(std::move(genes)), types_(std::move(types)) {
  Random random(size_.seed, kMarkers);
  std::set<std::string> taken;
  for (const SimulatedType& type : types_) taken.insert(type.markers.begin(), type.markers.end());
  for (SimulatedType& type : types_) {
    if (!type.markers.empty()) continue;
    while (type.markers.size() < kDrawnMarkers) {
      const std::string& name = genes_[random.below(genes_.size())].name;
      if (!name.empty() && taken.insert(name).second) type.markers.push_back(name);
    }
  }
  draw_means();
  draw_cells();
}

// A share of the genes goes up or down, mostly a little.
void SimulatedCounts::add_programme(std::vector<double>& log_mean, std::uint64_t stream, double share, double strength) const {
  Random random(size_.seed, stream);
  for (double& entry : log_mean) {
    const double draw = random.uniform(), change = random.normal();
    if (draw < share) entry += strength * change;
  }
}

void SimulatedCounts::draw_means() {
  const size_t n = genes_.size(), donors = static_cast<size_t>(size_.donors);
  Random random(size_.seed, kBase);
  std::vector<double> base(n);
  dispersion_.resize(n);
  for (size_t g = 0; g < n; ++g) {
    base[g] = kBaseSpread * random.normal();
    dispersion_[g] = static_cast<float>(0.15 * std::exp(0.4 * random.normal()));
  }
  std::map<std::string, size_t> gene_of_name;
  for (size_t g = 0; g < n; ++g) gene_of_name.emplace(genes_[g].name, g);
  std::map<std::string, std::uint64_t> lineages;
  for (const SimulatedType& type : types_) lineages.emplace(type.lineage, lineages.size());

  means_.resize(types_.size() * donors * n);
  for (size_t t = 0; t < types_.size(); ++t) {
    std::vector<double> of_type = base;
    add_programme(of_type, kLineage + lineages.at(types_[t].lineage), 0.10, 0.6);
    add_programme(of_type, kType + t, 0.03, 0.5);
    double sum = 0;
    for (double entry : of_type) sum += std::exp(entry);
    for (size_t other = 0; other < types_.size(); ++other) {
      const double share = kMarkerShare * (other == t ? 1.0 : kMarkerElsewhere);
      for (const std::string& marker : types_[other].markers) of_type[gene_of_name.at(marker)] = std::log(share * sum);
    }
    for (size_t d = 0; d < donors; ++d) {
      std::vector<double> here = of_type;
      add_programme(here, kDonor + d, 1.0, kDonorSpread);
      double total = 0;
      for (double& entry : here) total += entry = std::exp(entry);
      for (size_t g = 0; g < n; ++g) means_[(t * donors + d) * n + g] = static_cast<float>(here[g] / total);
    }
  }
  std::vector<double> ambient(n, 0.0);
  const double profiles = static_cast<double>(types_.size() * donors);
  for (size_t i = 0; i < means_.size(); ++i) ambient[i % n] += means_[i] / profiles;
  for (size_t i = 0; i < means_.size(); ++i) means_[i] = static_cast<float>((1 - kAmbient) * means_[i] + kAmbient * ambient[i % n]);
}

void SimulatedCounts::draw_cells() {
  Random random(size_.seed, kCells);
  const std::vector<double> types = uneven_shares(random, types_.size(), 0.5);
  const std::vector<double> donors = uneven_shares(random, static_cast<size_t>(size_.donors), 0.2);
  std::vector<std::vector<double>> types_of_donor;
  for (size_t d = 0; d < donors.size(); ++d) {  // each donor has a composition of its own
    std::vector<double> shares = uneven_shares(random, types.size(), 0.3);
    std::transform(shares.begin(), shares.end(), types.begin(), shares.begin(), std::multiplies<>());
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    for (double& share : shares) share /= sum;
    types_of_donor.push_back(std::move(shares));
    depth_of_donor_.push_back(std::exp(kDonorDepthSpread * random.normal()));
  }
  for (std::uint64_t cell = 0; cell < size_.cells; ++cell) {
    const std::int32_t donor = drawn(random, donors);
    donor_of_cell_.push_back(donor);
    type_of_cell_.push_back(drawn(random, types_of_donor[static_cast<size_t>(donor)]));
  }
  for (size_t t = 0; t < types_.size() && t < size_.cells; ++t)  // every type occurs where there are cells enough
    if (std::find(type_of_cell_.begin(), type_of_cell_.end(), static_cast<std::int32_t>(t)) == type_of_cell_.end())
      type_of_cell_[t] = static_cast<std::int32_t>(t);
}

const float* SimulatedCounts::mean_of(std::uint64_t cell) const {
  const auto row = static_cast<size_t>(type_of_cell_[cell]) * static_cast<size_t>(size_.donors) + static_cast<size_t>(donor_of_cell_[cell]);
  return means_.data() + row * genes_.size();
}

CsrBlock SimulatedCounts::cells(std::uint64_t begin, std::uint64_t end) const {
  const auto rows = static_cast<std::int64_t>(end - begin);
  std::vector<std::vector<std::pair<std::int32_t, float>>> drawn_rows(end - begin);
#pragma omp parallel for schedule(dynamic, 16)
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::uint64_t cell = begin + static_cast<std::uint64_t>(r);
    Random random(size_.seed, cell);
    const double depth =
        kMedianDepth * depth_of_donor_[static_cast<size_t>(donor_of_cell_[cell])] * std::exp(kDepthSpread * random.normal());
    const float* mean = mean_of(cell);
    for (size_t g = 0; g < genes_.size(); ++g) {
      const std::uint32_t count = negative_binomial(random, depth * mean[g], dispersion_[g]);
      if (count > 0) drawn_rows[static_cast<size_t>(r)].emplace_back(static_cast<std::int32_t>(g), static_cast<float>(count));
    }
  }
  CsrBlock block;
  block.first = begin;
  block.offsets.push_back(0);
  for (const auto& row : drawn_rows) {
    for (const auto& [gene, count] : row) {
      block.genes.push_back(gene);
      block.values.push_back(count);
    }
    block.offsets.push_back(static_cast<std::int64_t>(block.genes.size()));
  }
  return block;
}

}  // namespace lc
