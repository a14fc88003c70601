// langcell vocab: genes.tsv from counts, vocab.txt from texts.
#include "tools/commands/vocab.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "engine/memory.h"
#include "models/langcell/data/texts.h"
#include "models/langcell/data/word_piece_builder.h"
#include "models/langcell/pretrained/geneformer_dictionaries.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/outputs.h"

namespace lc {

namespace {

constexpr std::uint64_t kCellsCountedAtOnce = 1024;

struct VocabOptions {
  Common common;
  CountsFlags counts;
  std::vector<std::filesystem::path> from;
  std::filesystem::path texts, out, geneformer_tokens, geneformer_medians;
  std::int32_t size = 8192;
  bool overwrite = false;
};

// After the first block of a file: what its medians will hold, judged by it, said when that is much, refused when it is more than there is.
void require_room(const MedianBuilder& builder, std::uint64_t before, double blocks, const std::filesystem::path& path,
                  const std::function<void(const std::string&)>& say) {
  constexpr double kMuch = 1 << 30;
  const double bytes = 4 * (static_cast<double>(before) + blocks * static_cast<double>(builder.values() - before));
  if (bytes < kMuch) return;
  const double there = static_cast<double>(available_memory());
  const std::string holds = fmt::format("{}: exact medians hold about {:.1f} GiB", path.string(), bytes / kMuch);
  if (there > 0 && bytes > there)
    throw ResourceError(
        fmt::format("{}, and {:.1f} GiB are free: take a vocabulary that exists (--geneformer-tokens, or genes.tsv of a model), "
                    "or counts of some of the cells (langcell split)",
                    holds, there / kMuch));
  say(holds);
}

void publish(const VocabOptions& options, AtomicFile& file, const std::string& content, const nlohmann::ordered_json& summary) {
  file.write(content);
  file.commit();
  if (options.common.json) {
    fmt::print("{}\n", summary.dump());
    return;
  }
  for (const auto& [key, value] : summary.items())
    fmt::print("{:<8}{}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
}

void make_vocabulary(const VocabOptions& options) {
  const bool geneformer = !options.geneformer_tokens.empty();
  if (!options.from.empty() + !options.texts.empty() + geneformer != 1) {
    throw UsageError(
        "vocab: give one of --from (counts to genes.tsv), --geneformer-tokens with --geneformer-medians (the same), --texts (texts to "
        "vocab.txt)");
  }
  begin(options.common);
  require_not_an_input(options.out, options.from);
  require_not_an_input(options.out, std::span(&options.texts, 1));
  const Texts texts = options.texts.empty() ? Texts{} : Texts::read(options.texts);
  AtomicFile file(options.out, options.overwrite ? Existing::replace : Existing::refuse);
  if (!options.texts.empty()) {
    const std::vector<std::string> all = texts.all();
    const WordPiece pieces = build_word_piece(all, options.size);
    if (const std::string warning = unknown_warning(pieces, all); !warning.empty()) warn(warning);
    publish(options, file, pieces.text(), {{"out", options.out.string()}, {"pieces", pieces.size()}, {"texts", all.size()}});
  } else {
    const GeneVocabulary genes = geneformer ? read_geneformer_dictionaries(options.geneformer_tokens, options.geneformer_medians)
                                            : gene_vocabulary_of(options.from, counts_options(options.counts),
                                                                 [&](const std::string& line) { say(options.common, line); });
    publish(options, file, genes.tsv(), {{"out", options.out.string()}, {"genes", genes.genes().size()}, {"sha256", genes.hash()}});
  }
  end(options.common);
}

}  // namespace

GeneVocabulary gene_vocabulary_of(std::span<const std::filesystem::path> files, const CountsOptions& options,
                                  const std::function<void(const std::string&)>& say) {
  MedianBuilder builder;
  for (const std::filesystem::path& path : files) {
    const CountMatrix counts = open_counts(path, options);
    for (const std::string& note : counts.notes()) say(fmt::format("{}: {}", path.string(), note));
    for (const std::string& warning : counts.warnings()) warn(fmt::format("{}: {}", path.string(), warning));
    std::vector<std::string> ids = counts.gene_ids();
    for (std::string& id : ids)
      if (!is_ensembl_gene(id)) id.clear();
    builder.begin_matrix(ids, counts.gene_names());
    const std::uint64_t before = builder.values();
    std::uint64_t seen = 0;
    std::vector<std::int64_t> indptr;
    counts.for_each_block(kCellsCountedAtOnce, [&](const CsrBlock& block) {
      indptr.assign(block.offsets.begin(), block.offsets.end());
      builder.add({indptr, block.genes, block.values});
      if (seen == 0) require_room(builder, before, static_cast<double>(counts.n_cells()) / static_cast<double>(block.rows()), path, say);
      seen += block.rows();
    });
  }
  return builder.finish();
}

void add_geneformer_options(Command command, std::filesystem::path& tokens, std::filesystem::path& medians) {
  Option first = command.add_option("--geneformer-tokens", tokens, "Geneformer V1's token_dictionary.pkl").type_name("FILE");
  Option second = command.add_option("--geneformer-medians", medians, "Geneformer V1's gene_median_dictionary.pkl").type_name("FILE");
  first.needs(second), second.needs(first);
}

void register_vocab(Command program) {
  Command command =
      add_command(program, "vocab", "make a vocabulary: genes.tsv from counts or Geneformer's dictionaries, or vocab.txt from texts",
                  "langcell vocab --from cells.h5ad --out genes.tsv\n  langcell vocab --texts texts.json --out vocab.txt");
  const auto options = std::make_shared<VocabOptions>();
  command.add_option("--from", options->from, "counts (.h5ad); medians are exact, over all files").type_name("IN.h5ad");
  add_geneformer_options(command, options->geneformer_tokens, options->geneformer_medians);
  command.add_option("--texts", options->texts, "texts (label: text)").type_name("T.json");
  command.add_option("--out", options->out, "the file to write").required().type_name("FILE");
  command.add_option("--size", options->size, "most pieces of vocab.txt").range(200, 1000000).capture_default_str();
  command.add_flag("--overwrite", options->overwrite, "replace an existing file");
  add_counts_flags(command, options->counts);
  add_common_options(command, options->common);
  command.callback([options] { make_vocabulary(*options); });
}

}  // namespace lc
