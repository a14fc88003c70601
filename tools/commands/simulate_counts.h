// The count model of `simulate`. Mean of gene g in a cell of type t and donor d: base(g) · lineage(t, g) · type(t, g) · donor(d, g), plus a
// little of what floats in the droplets; depth is lognormal, counts are negative-binomial around depth · mean. Each cell has its own stream
// of chance.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tools/anndata/matrix.h"
#include "tools/commands/simulate_types.h"

namespace lc {

struct SimulatedGene {
  std::string ensembl_id, name;
};

struct SimulationSize {
  std::uint64_t cells = 2000, seed = 0;
  int donors = 4;
};

class SimulatedCounts {
 public:
  // genes must contain the markers of every type by name; types without markers are given some.
  SimulatedCounts(const SimulationSize& size, std::vector<SimulatedGene> genes, std::vector<SimulatedType> types);

  const std::vector<SimulatedGene>& genes() const { return genes_; }
  const std::vector<SimulatedType>& types() const { return types_; }
  const std::vector<std::int32_t>& type_of_cell() const { return type_of_cell_; }
  const std::vector<std::int32_t>& donor_of_cell() const { return donor_of_cell_; }
  CsrBlock cells(std::uint64_t begin, std::uint64_t end) const;  // counts; the same for every division into blocks and number of threads

 private:
  void draw_means();
  void draw_cells();
  void add_programme(std::vector<double>& log_mean, std::uint64_t stream, double share, double strength) const;
  const float* mean_of(std::uint64_t cell) const;

  SimulationSize size_;
  std::vector<SimulatedGene> genes_;
  std::vector<SimulatedType> types_;
  std::vector<float> means_;       // (types × donors, genes): shares of a cell's counts
  std::vector<float> dispersion_;  // per gene: variance = mean + dispersion · mean²
  std::vector<std::int32_t> type_of_cell_, donor_of_cell_;
  std::vector<double> depth_of_donor_;
};

}  // namespace lc
