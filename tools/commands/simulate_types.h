// The cell types that `simulate` knows: names, descriptions, marker genes. Beyond them populations are numbered.
#pragma once
#include <string>
#include <vector>

namespace lc {

struct SimulatedType {
  std::string name, lineage, definition;  // types of one lineage share a programme of genes
  std::vector<std::string> markers;       // gene names; empty: the simulation draws them
  std::string text() const;               // LangCell's template: "cell type: NAME. DEFINITION; ", naming the markers
};

std::vector<SimulatedType> simulated_types(int count);

}  // namespace lc
