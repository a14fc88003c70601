// From flags to what the reader of counts takes.
#include "tools/commands/counts_flags.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/errors.h"

namespace lc {

void add_counts_flags(Command command, CountsFlags& flags) {
  command.add_option("--layer", flags.layer, "the counts: X, raw/X or the name of a layer (default: the first that is counts)");
  command.add_option("--genome", flags.genome, "of a 10x file with several: the one to read");
  command.add_option("--min-counts", flags.min_counts, "of a 10x file: leave out barcodes with fewer counts")
      .range(std::int64_t{0}, std::int64_t{1} << 40)
      .type_name("N");
  command.add_flag("--fractional-counts", flags.fractional_counts, "accept corrected counts that are no integers (SoupX, CellBender)");
  command.add_flag("--gene-names", flags.gene_names, "genes are given as symbols: look them up in the vocabulary");
  command.add_option("--gene-map", flags.gene_map, "retired or alias ids and symbols, with the current id beside each").type_name("F.tsv");
  command.add_option("--orthologs", flags.orthologs, "ids of another species, with the human id beside each; one-to-one pairs are used")
      .type_name("F.tsv");
  command.add_flag("--allow-low-coverage", flags.allow_low_coverage, "go on where the vocabulary knows too little of the file");
}

CountsOptions counts_options(const CountsFlags& flags) {
  if (flags.gene_names)
    throw UsageError(
        "--gene-names: symbols are looked up in a vocabulary that has them: give --genes genes.tsv (of a model, or of langcell vocab "
        "--from a "
        "file with Ensembl ids and names); a vocabulary made from data needs Ensembl ids in the file");
  CountsOptions options;
  options.layer = flags.layer, options.tenx = {flags.genome, flags.min_counts};
  if (!flags.gene_map.empty()) options.genes.renamed = GeneMap::read(flags.gene_map);
  if (!flags.orthologs.empty()) options.genes.orthologs = GeneMap::read_orthologs(flags.orthologs);
  options.fractional = flags.fractional_counts ? FractionalCounts::accept : FractionalCounts::refuse;
  return options;
}

CountsOptions counts_options(const CountsFlags& flags, const GeneVocabulary& vocabulary) {
  CountsFlags rest = flags;
  rest.gene_names = false;
  CountsOptions options = counts_options(rest);
  if (!flags.gene_names) return options;
  options.genes.names = GeneNames::accept;
  for (const Gene& gene : vocabulary.genes()) options.genes.known.push_back({gene.ensembl_id, gene.name});
  if (std::all_of(vocabulary.genes().begin(), vocabulary.genes().end(), [](const Gene& gene) { return gene.name.empty(); }))
    throw UsageError("--gene-names: the vocabulary has no gene names to look symbols up in; take one with names, or give --gene-map");
  return options;
}

}  // namespace lc
