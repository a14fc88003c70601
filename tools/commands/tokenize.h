// Counts and texts to a corpus, for the commands tokenize and train.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "models/langcell/data/corpus.h"
#include "models/langcell/data/text_template.h"
#include "models/langcell/data/texts.h"
#include "tools/anndata/counts.h"

namespace lc {

enum class MissingLabels : std::uint8_t { refuse, keep };  // keep: cells whose label has no text stay, without one
enum class Schema : std::uint8_t { any, cellxgene };       // cellxgene: human, primary data only
enum class Duplicates : std::uint8_t { drop, keep };

struct TokenizeOptions {
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path out;
  GeneVocabulary genes;
  Texts texts;                                    // empty: no cell gets a text
  std::optional<TextTemplate> text_template;      // instead of texts
  std::vector<std::filesystem::path> ontologies;  // words for the template, and which types are kinds of which
  Schema schema = Schema::any;
  std::string label_key;             // column of obs that names the text; kept as obs/label
  std::vector<std::string> columns;  // further columns of obs to keep
  MissingLabels missing = MissingLabels::refuse;
  Duplicates duplicates = Duplicates::drop;
  LowCoverage low_coverage = LowCoverage::refuse;
  Existing existing = Existing::refuse;
  std::int64_t max_genes = 2047;
  CountsOptions counts;
  std::function<void(const std::string&)> say = [](const std::string&) {};  // progress
};

// The labels of all files have texts, before a count is read. DataError; the number of cells.
std::uint64_t check_labels(const TokenizeOptions& options);

// Streams every cell into options.out. DataError: labels without a text, files that the vocabulary does not know.
Funnel tokenize(const TokenizeOptions& options);

inline constexpr const char* kWithoutText = "without a text";  // of Funnel::noted
std::string funnel_table(const Funnel& funnel);                // to print

}  // namespace lc
