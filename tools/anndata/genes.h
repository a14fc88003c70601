// Which column of var names the genes, as Ensembl ids; and how much of a file a gene vocabulary knows (the three figures).
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/anndata/frame.h"
#include "tools/anndata/gene_map.h"

namespace lc {

struct KnownGene {  // a row of genes.tsv, as far as names need it
  std::string ensembl_id, name;
};

enum class GeneNames : std::uint8_t { refuse, accept };  // accept: gene symbols are looked up among the known genes

struct GeneIds {
  std::vector<std::string> ids;    // per column: Ensembl id without version; what has none keeps its own text (ERCC-00002)
  std::vector<std::string> names;  // symbols where the file has them, else ""
  std::string source;              // "raw/var index", "var/gene_ids", "var index (gene names)"
  std::vector<std::string> notes, warnings;
  bool cross_species = false;  // ids are those of orthologs
};

bool is_ensembl_gene(std::string_view id);                        // of any species, with or without version
std::string without_version(std::string_view id);                 // ENSG00000000003.15 → ENSG00000000003
std::optional<std::string> foreign_species(std::string_view id);  // "mouse (Mus musculus)" for ENSMUSG…; nothing for human

struct GeneTable {                                                                // what a file says of its genes, column by column
  std::string where, name;                                                        // for messages
  std::vector<std::string> index, symbols;                                        // symbols: empty where there are none
  std::vector<std::pair<std::string, std::vector<std::string>>> id_columns = {};  // that may hold Ensembl ids, in the order to look
};
GeneTable gene_table_of(const Frame& var);

struct GeneRules {
  GeneNames names = GeneNames::refuse;
  std::vector<KnownGene> known = {};  // where names are looked up
  GeneMap renamed = {};               // retired ids and aliases
  GeneMap orthologs = {};             // of another species
};

// The index, then gene_ids, ensembl_id, gene_id, feature_id: the first with at least half Ensembl ids; orthologs, then current ids in their
// place. DataError: another species without orthologs, or symbols while refused.
GeneIds choose_gene_ids(const GeneTable& var, const GeneRules& rules);

struct Coverage {
  std::uint64_t columns = 0, matched = 0, vocabulary = 0, present = 0;
  double id_match = 0, counts_known = 0, breadth = 0;   // shares, 0 to 1
  std::vector<std::pair<std::string, double>> missing;  // the five unknown genes with the largest share of all counts
  std::vector<std::string> lines, warnings;             // to print
  std::optional<std::string> refusal;                   // why it must not go on
};

enum class LowCoverage : std::uint8_t { refuse, accept };

// ids and totals per column of the matrix (names may be empty); vocabulary: the Ensembl ids of the model or genes.tsv.
Coverage coverage(std::span<const std::string> ids, std::span<const std::string> names, std::span<const double> totals,
                  std::span<const std::string> vocabulary);
void require(const Coverage& figures, LowCoverage low, std::string_view file);  // DataError with the refusal

}  // namespace lc
