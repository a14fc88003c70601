// Geneformer V1's gene vocabulary: two pickled dictionaries, Ensembl id → token and Ensembl id → median (Theodoris et al. 2023).
#pragma once
#include <filesystem>

#include "models/langcell/data/gene_vocabulary.h"

namespace lc {

// Tokens must be `<pad>` 0, `<mask>` 1, then every number up to the last gene; each gene needs a median. Gene names are not in these files.
// ModelError naming the file and the gene otherwise.
GeneVocabulary read_geneformer_dictionaries(const std::filesystem::path& tokens, const std::filesystem::path& medians);

}  // namespace lc
