#include "tools/commands/simulate_types.h"

#include <fmt/format.h>

namespace lc {

namespace {

const std::vector<SimulatedType>& known_types() {
  static const std::vector<SimulatedType> types = {
      {"B cell",
       "lymphoid",
       "a lymphocyte that carries a surface immunoglobulin receptor, presents antigen and gives rise to antibody secreting cells",
       {"MS4A1", "CD79A", "CD79B", "CD19", "BANK1", "PAX5"}},
      {"CD4-positive, alpha-beta T cell",
       "lymphoid",
       "a helper lymphocyte that recognises peptides on MHC class II and directs other immune cells",
       {"CD4", "IL7R", "CCR7", "TCF7", "LEF1", "MAL"}},
      {"CD8-positive, alpha-beta T cell",
       "lymphoid",
       "a cytotoxic lymphocyte that recognises peptides on MHC class I and kills infected or transformed cells",
       {"CD8A", "CD8B", "GZMK", "CCL5", "CD3D", "CD3E"}},
      {"natural killer cell",
       "lymphoid",
       "an innate lymphocyte without antigen receptor that kills stressed, infected and transformed cells",
       {"NKG7", "GNLY", "KLRD1", "KLRF1", "PRF1", "NCAM1"}},
      {"classical monocyte",
       "myeloid",
       "a phagocytic leukocyte of the blood that enters inflamed tissue and becomes a macrophage",
       {"CD14", "LYZ", "S100A8", "S100A9", "VCAN", "FCN1"}},
      {"dendritic cell",
       "myeloid",
       "an antigen presenting cell that captures antigen in tissues and primes naive T cells in lymph nodes",
       {"FCER1A", "CLEC10A", "CD1C", "FLT3", "CST3", "HLA-DQA1"}},
      {"platelet",
       "megakaryocyte and erythroid",
       "a small fragment of a megakaryocyte without nucleus that clots blood where a vessel is hurt",
       {"PPBP", "PF4", "GP9", "ITGA2B", "TUBB1", "GNG11"}},
      {"plasma cell",
       "lymphoid",
       "a terminally differentiated cell of the B lineage that secretes large amounts of antibody",
       {"MZB1", "JCHAIN", "XBP1", "SDC1", "DERL3", "TNFRSF17"}},
      {"erythroid lineage cell",
       "megakaryocyte and erythroid",
       "a maturing red cell that fills with haemoglobin and carries oxygen",
       {"HBB", "HBA1", "HBA2", "ALAS2", "GYPA", "AHSP"}},
      {"mast cell",
       "myeloid",
       "a granular tissue leukocyte that releases histamine and proteases when IgE on its surface meets an allergen",
       {"TPSAB1", "TPSB2", "CPA3", "MS4A2", "KIT", "HDC"}},
      {"endothelial cell",
       "stromal",
       "a flat cell that lines blood and lymph vessels and controls what leaves them",
       {"PECAM1", "VWF", "CDH5", "CLDN5", "EMCN", "ERG"}},
      {"fibroblast",
       "stromal",
       "a spindle-shaped cell of connective tissue that makes collagen and the rest of the extracellular matrix",
       {"COL1A1", "COL1A2", "DCN", "LUM", "PDGFRA", "FBLN1"}},
      {"epithelial cell",
       "epithelial",
       "a polarised cell that covers surfaces and lines ducts, joined to its neighbours by tight junctions",
       {"EPCAM", "KRT8", "KRT18", "KRT19", "CDH1", "ELF3"}},
      {"smooth muscle cell",
       "stromal",
       "a contractile cell in the walls of vessels and hollow organs, without striation",
       {"ACTA2", "TAGLN", "MYH11", "CNN1", "MYLK", "DES"}},
      {"hepatocyte",
       "epithelial",
       "the main cell of the liver, which makes plasma proteins and bile and clears toxins",
       {"ALB", "APOA1", "TF", "SERPINA1", "TTR", "FGB"}},
      {"neuron",
       "neural",
       "an excitable cell that passes signals along its axon and through synapses",
       {"SNAP25", "SYT1", "RBFOX3", "STMN2", "MAP2", "NEFL"}},
  };
  return types;
}

}  // namespace

std::string SimulatedType::text() const {
  return fmt::format("cell type: {}. {}, marked by {}; ", name, definition, fmt::join(markers, ", "));
}

std::vector<SimulatedType> simulated_types(int count) {
  std::vector<SimulatedType> types = known_types();
  const size_t wanted = static_cast<size_t>(count);
  while (types.size() < wanted) {
    const size_t number = types.size() + 1;
    types.push_back({fmt::format("population {}", number),
                     types[number % known_types().size()].lineage,
                     fmt::format("a simulated population of cells, the one with number {}", number),
                     {}});
  }
  types.resize(wanted);
  return types;
}

}  // namespace lc
