// Vocabularies from data, for the commands vocab and train.
#pragma once
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "models/langcell/data/gene_vocabulary.h"
#include "tools/anndata/counts.h"
#include "tools/commands/command_line.h"

namespace lc {

// Genes with an Ensembl id that a cell has, with the exact medians over all files. Lines of progress go to `say`.
GeneVocabulary gene_vocabulary_of(std::span<const std::filesystem::path> files, const CountsOptions& counts,
                                  const std::function<void(const std::string&)>& say);

// --geneformer-tokens and --geneformer-medians, which need each other.
void add_geneformer_options(Command command, std::filesystem::path& tokens, std::filesystem::path& medians);

}  // namespace lc
