// langcell tokenize: files of counts to one corpus; with --model and texts alone, the ids that the text tower reads.
#include "tools/commands/tokenize.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "models/langcell/data/cell_tokens.h"
#include "models/langcell/data/word_piece.h"
#include "models/langcell/json_file.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/outputs.h"
#include "tools/commands/template_texts.h"

namespace lc {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kCellsTokenizedAtOnce = 1024;
constexpr std::int64_t kGenesToTellApart = 200;  // cells with fewer genes may be equal by chance

// ---- labels, looked at in all files before a count is read

void require_column(const CellTable& obs, const fs::path& path, const std::string& key) {
  if (obs.has(key)) return;
  throw DataError(fmt::format("{}:/obs: no column '{}'; there are: {}", path.string(), key, fmt::join(obs.columns(), ", ")));
}

// ---- one file

class TokenizeProgress {
 public:
  TokenizeProgress(const TokenizeOptions& options, std::string what, std::uint64_t total)
      : options_(options), what_(std::move(what)), total_(total) {}
  void at(std::uint64_t done) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::seconds(5) || done == 0) return;
    last_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count(), rate = static_cast<double>(done) / seconds;
    options_.say(fmt::format("{}: {} of {} cells, {:.0f} cells/s, {:.0f} s left", what_, done, total_, rate,
                             static_cast<double>(total_ - done) / rate));
  }

 private:
  const TokenizeOptions& options_;
  std::string what_;
  std::uint64_t total_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_ = start_;
};

struct Tally {
  std::uint64_t read = 0, kept = 0, not_primary = 0, duplicates = 0, without_text = 0, empty = 0, full = 0;
};

struct Columns {  // of obs, row by row
  std::vector<Categorical> values;
  std::vector<std::int32_t> group_of_label;  // by category of the first column, which is the label's
  std::vector<std::int32_t> group_of_cell;   // of a template
  std::vector<char> primary;                 // empty: all are
  std::vector<std::string> row(size_t cell) const {
    std::vector<std::string> out;
    for (const Categorical& column : values) out.push_back(column.label(cell));
    return out;
  }
  std::int32_t group(size_t cell) const {
    if (!group_of_cell.empty()) return group_of_cell[cell];
    if (group_of_label.empty() || values.front().codes[cell] < 0) return -1;
    return group_of_label[static_cast<size_t>(values.front().codes[cell])];
  }
};

Columns columns_of(const CellTable& obs, const TokenizeOptions& options, TemplateTexts* from_template) {
  Columns columns;
  if (from_template) columns.group_of_cell = from_template->groups_of(obs, "");
  if (options.schema == Schema::cellxgene) columns.primary = primary_cells(obs);
  if (!options.label_key.empty()) {
    columns.values.push_back(obs.categorical(options.label_key));
    for (const std::string& label : columns.values.front().categories)
      columns.group_of_label.push_back(static_cast<std::int32_t>(options.texts.index_of(label)));
  }
  for (const std::string& key : options.columns) columns.values.push_back(obs.categorical(key));
  return columns;
}

CorpusInput report_input(const TokenizeOptions& options, const fs::path& path, const CountMatrix& counts, const CellTokenizer& tokenizer) {
  const std::string name = path.string();
  for (const std::string& note : counts.notes()) options.say(fmt::format("{}: {}", name, note));
  for (const std::string& warning : counts.warnings()) warn(fmt::format("{}: {}", name, warning));
  if (tokenizer.repeated_columns() > 0)
    options.say(fmt::format("{}: {} columns repeat a gene; the counts of a gene's columns are summed", name, tokenizer.repeated_columns()));
  std::vector<std::string> vocabulary;
  for (const Gene& gene : options.genes.genes()) vocabulary.push_back(gene.ensembl_id);
  const Coverage figures = coverage(counts, vocabulary);
  for (const std::string& line : figures.lines) options.say(fmt::format("{}: {}", name, line));
  for (const std::string& warning : figures.warnings) warn(fmt::format("{}: {}", name, warning));
  require(figures, options.low_coverage, name);
  return {name,           sha256_of_file(counts_file(path)), counts.source(), counts.n_cells(), figures.id_match, figures.counts_known,
          figures.breadth};
}

struct Target {  // what the cells of every file go to
  CorpusWriter& writer;
  SeenCells& seen;
  TemplateTexts* from_template = nullptr;
  Tally tally{};
};

CorpusInput add_file(const TokenizeOptions& options, const fs::path& path, Target& target) {
  Tally& tally = target.tally;
  const CountMatrix counts = open_counts(path, options.counts);
  const CellTokenizer tokenizer(options.genes, counts.gene_ids(), options.max_genes);
  CorpusInput input = report_input(options, path, counts, tokenizer);
  const CellTable& obs = counts.cells();
  const Columns columns = columns_of(obs, options, target.from_template);
  TokenizeProgress progress(options, path.string(), counts.n_cells());
  std::vector<std::int64_t> indptr;
  counts.for_each_block(kCellsTokenizedAtOnce, [&](const CsrBlock& block) {
    indptr.assign(block.offsets.begin(), block.offsets.end());
    const CountBlock view{indptr, block.genes, block.values};
    const CellTokens tokens = tokenizer.encode(view);
    const auto prints = options.duplicates == Duplicates::drop ? tokenizer.fingerprints(view, kGenesToTellApart)
                                                               : std::vector<std::uint64_t>(block.rows(), 0);
    const auto names_here = obs.names(block.first, block.first + block.rows());
    for (size_t row = 0; row < block.rows(); ++row) {
      ++tally.read;
      if (!columns.primary.empty() && !columns.primary[block.first + row]) {
        ++tally.not_primary;
        continue;
      }
      if (prints[row] != 0 && !target.seen.insert(prints[row])) {
        ++tally.duplicates;
        continue;
      }
      const size_t cell = block.first + row;
      const std::vector<std::string> values = columns.row(cell);
      const CorpusCell entry{names_here[row], tokens.cell(static_cast<std::int64_t>(row)), columns.group(cell), values};
      target.writer.append(entry);
      ++tally.kept;
      tally.without_text += entry.group < 0;
      tally.empty += entry.tokens.empty();
      tally.full += static_cast<std::int64_t>(entry.tokens.size()) == options.max_genes;
    }
    progress.at(block.first + block.rows());
  });
  return input;
}

Funnel funnel_of(const Tally& tally, const TokenizeOptions& options) {
  Funnel funnel{tally.read, tally.kept, {{"duplicate", tally.duplicates}}, {{"without a known gene", tally.empty}}};
  if (options.schema == Schema::cellxgene) funnel.dropped.insert(funnel.dropped.begin(), {"not primary data", tally.not_primary});
  funnel.noted.emplace_back(fmt::format("with {} genes or more (cut there)", options.max_genes), tally.full);
  if (!options.texts.labels.empty() || options.text_template) funnel.noted.emplace_back(kWithoutText, tally.without_text);
  return funnel;
}

FieldWords words_of(const TokenizeOptions& options) {
  std::vector<Ontology> ontologies;
  for (const fs::path& path : options.ontologies) ontologies.push_back(Ontology::read(path));
  return FieldWords(std::move(ontologies));
}

void say_unknown(const FieldWords& words) {
  if (words.unknown().empty()) return;
  std::vector<std::string> listed;
  for (const auto& [name, id] : words.unknown())
    listed.push_back(id.empty() ? fmt::format("'{}'", name) : fmt::format("'{}' ({})", name, id));
  warn(fmt::format("{} names have no term in the ontologies and stand without a definition: {}", listed.size(), fmt::join(listed, ", ")));
}

// ---- the command

struct TokenizeFlags {
  Common common;
  CountsFlags counts;
  std::vector<fs::path> inputs;
  fs::path genes, out, texts, model, text_template;
  std::vector<fs::path> obo;
  std::string label_key;
  std::vector<std::string> columns;
  bool allow_missing = false, keep_duplicates = false, overwrite = false, cellxgene = false;
  std::int64_t max_genes = 2047;
};

void show_text_ids(const TokenizeFlags& flags) {
  const Texts texts = Texts::read(flags.texts);
  const fs::path tower = flags.model / "text_bert", vocabulary = tower / "vocab.txt";
  const WordPiece pieces = WordPiece::read(vocabulary);
  const JsonFile config(tower / "config.json");
  pieces.require_fits(config.get<std::int64_t>("vocab_size"), vocabulary.string());
  const auto longest =
      JsonFile(flags.model / "config.json").get_or<std::int64_t>("max_text_tokens", config.get<std::int64_t>("max_position_embeddings"));
  nlohmann::ordered_json out = {{"texts", nlohmann::ordered_json::array()}};
  for (const LabelTexts& entry : texts.labels) {
    auto ids = nlohmann::ordered_json::array();
    for (const std::string& text : entry.texts) {
      const EncodedText encoded = pieces.encode(text, longest);
      if (encoded.pieces > longest)
        warn(fmt::format("the text of '{}' has {} tokens and is cut to {}", entry.label, encoded.pieces, longest));
      if (!flags.common.json) fmt::print("{}\t{}\n", entry.label, fmt::join(encoded.ids, " "));
      ids.push_back(encoded.ids);
    }
    out["texts"].push_back({{"label", entry.label}, {"ids", std::move(ids)}});
  }
  if (const std::string warning = unknown_warning(pieces, texts.all()); !warning.empty()) warn(warning);
  if (flags.common.json) fmt::print("{}\n", out.dump());
}

void run_tokenize(const TokenizeFlags& flags) {
  begin(flags.common);
  if (flags.inputs.empty()) {
    if (flags.model.empty() || flags.texts.empty())
      throw UsageError("tokenize: give files of counts, --genes and --out; or --model and --texts for the ids of texts");
    return show_text_ids(flags);
  }
  if (flags.genes.empty() || flags.out.empty()) throw UsageError("tokenize: --genes and --out are needed");
  if (!flags.texts.empty() && flags.label_key.empty())
    throw UsageError("tokenize: --texts needs --label-key, the column of obs that names a cell's text");
  const bool templated = !flags.text_template.empty() || (flags.cellxgene && flags.texts.empty());
  if (!flags.texts.empty() && !flags.text_template.empty()) throw UsageError("tokenize: give --texts or --template, not both");
  if (!flags.obo.empty() && !templated && flags.texts.empty())
    throw UsageError("tokenize: --obo needs --template, --cellxgene or --texts: nothing else has words or types");
  std::vector<fs::path> read = {flags.genes, flags.texts, flags.text_template};
  read.insert(read.end(), flags.obo.begin(), flags.obo.end());
  require_not_an_input(flags.out, read);
  TokenizeOptions options;
  options.inputs = flags.inputs;
  options.out = flags.out;
  options.genes = GeneVocabulary::read(flags.genes);
  if (!flags.texts.empty()) options.texts = Texts::read(flags.texts);
  if (templated)
    options.text_template = flags.text_template.empty() || flags.text_template == "default" ? TextTemplate::standard()
                                                                                            : TextTemplate::read(flags.text_template);
  options.ontologies = flags.obo;
  options.schema = flags.cellxgene ? Schema::cellxgene : Schema::any;
  options.label_key = flags.label_key;
  options.columns = flags.columns;
  options.missing = flags.allow_missing ? MissingLabels::keep : MissingLabels::refuse;
  options.duplicates = flags.keep_duplicates ? Duplicates::keep : Duplicates::drop;
  options.low_coverage = flags.counts.low_coverage();
  options.existing = flags.overwrite ? Existing::replace : Existing::refuse;
  options.max_genes = flags.max_genes;
  options.counts = counts_options(flags.counts, options.genes);
  options.say = [&](const std::string& line) { say(flags.common, line); };
  const Funnel funnel = tokenize(options);
  const nlohmann::ordered_json result = {{"out", flags.out.string()}, {"funnel", nlohmann::ordered_json::parse(funnel.json())}};
  fmt::print("{}", flags.common.json ? result.dump() + '\n' : funnel_table(funnel));
  end(flags.common);
}

}  // namespace

std::uint64_t check_labels(const TokenizeOptions& options) {
  std::uint64_t cells = 0;
  std::map<std::string, std::uint64_t> unknown;
  bool some_known = false;
  for (const fs::path& path : options.inputs) {
    const CellTable obs = open_cells(path, options.counts.tenx);
    cells += obs.rows();
    if (options.schema == Schema::cellxgene) require_cellxgene(path, obs);
    for (const std::string& column : options.columns) require_column(obs, path, column);
    if (options.label_key.empty()) continue;
    require_column(obs, path, options.label_key);
    const Categorical labels = obs.categorical(options.label_key);
    std::vector<std::uint64_t> cells_of(labels.categories.size(), 0);
    for (const std::int32_t code : labels.codes)
      if (code >= 0) ++cells_of[static_cast<size_t>(code)];
    for (size_t i = 0; i < cells_of.size(); ++i) {
      if (cells_of[i] == 0) continue;
      if (options.texts.index_of(labels.categories[i]) < 0)
        unknown[labels.categories[i]] += cells_of[i];
      else
        some_known = true;
    }
  }
  if (unknown.empty() || options.texts.labels.empty() || options.missing == MissingLabels::keep) return cells;
  constexpr std::size_t kListed = 20;
  std::vector<std::string> listed;
  for (const auto& [label, count] : unknown) {
    if (listed.size() == kListed) break;
    listed.push_back(fmt::format("'{}' ({} cells)", label, count));
  }
  if (unknown.size() > kListed) listed.push_back(fmt::format("… and {} more", unknown.size() - kListed));
  throw DataError(fmt::format("obs/{}: {} labels have no text: {}; {}", options.label_key, unknown.size(), fmt::join(listed, ", "),
                              some_known ? "add them to the texts, or keep such cells without a text with --allow-missing"
                                         : "and no label has one: is this the column of the labels, and are these its texts?"));
}

Funnel tokenize(const TokenizeOptions& options) {
  require_not_an_input(options.out, options.inputs);
  CorpusSetup setup{options.genes, options.texts, {}, options.max_genes, options.existing};
  if (!options.label_key.empty()) setup.columns.push_back("label");
  for (const std::string& key : options.columns) {
    if (std::count(options.columns.begin(), options.columns.end(), key) > 1) throw UsageError(fmt::format("--obs {}: given twice", key));
    if (key == "name" || key == "label" || key.find('/') != std::string::npos)
      throw UsageError(fmt::format("--obs {}: a corpus cannot keep a column of this name", key));
    setup.columns.push_back(key);
  }
  const std::uint64_t cells = check_labels(options);
  FieldWords words = words_of(options);
  const FieldWords* known = &words;
  std::optional<TemplateTexts> from_template;
  if (options.text_template) {
    from_template.emplace(*options.text_template, std::move(words));
    for (const fs::path& path : options.inputs) from_template->groups_of(open_cells(path, options.counts.tenx), path.string());
    known = &from_template->words();
    say_unknown(*known);
    setup.texts = from_template->texts();
  }
  setup.ancestors = known->ancestors_of(setup.texts);
  CorpusWriter writer(options.out, std::move(setup));
  SeenCells seen(options.duplicates == Duplicates::drop ? cells : 0);
  Target target{writer, seen, from_template ? &*from_template : nullptr};
  std::vector<CorpusInput> inputs;
  for (const fs::path& path : options.inputs) inputs.push_back(add_file(options, path, target));
  const Funnel funnel = funnel_of(target.tally, options);
  writer.finish(funnel, inputs, {{"label_key", options.label_key}});
  return funnel;
}

std::string funnel_table(const Funnel& funnel) {
  std::string out = fmt::format("{:>12}  cells read\n", funnel.read);
  for (const auto& [reason, count] : funnel.dropped) out += fmt::format("{:>12}  dropped: {}\n", count, reason);
  out += fmt::format("{:>12}  kept\n", funnel.kept);
  for (const auto& [what, count] : funnel.noted) out += fmt::format("{:>12}  of these {}\n", count, what);
  return out;
}

void register_tokenize(Command program) {
  Command command = add_command(program, "tokenize", "counts and texts to a corpus that pretrain reads",
                                "langcell tokenize cells.h5ad --genes genes.tsv --texts texts.json --label-key cell_type --out corpus.h5");
  const auto flags = std::make_shared<TokenizeFlags>();
  command.add_option("inputs", flags->inputs, "counts (.h5ad, 10x .h5 or MTX folder)").type_name("IN");
  command.add_option("--genes", flags->genes, "the gene vocabulary").type_name("genes.tsv");
  command.add_option("--out", flags->out, "the corpus to write").type_name("C.h5");
  command.add_option("--texts", flags->texts, "what each label means in words").type_name("T.json");
  command.add_option("--label-key", flags->label_key, "column of obs with the labels").type_name("KEY");
  command
      .add_option("--template", flags->text_template,
                  "texts from columns of obs: 'default', or a file with a column (tab, its title) on each line")
      .type_name("FILE");
  command.add_option("--obo", flags->obo, "an ontology with the words of the fields and the kinds of cells; may be given again")
      .once_each()
      .type_name("F.obo");
  command.add_flag("--cellxgene", flags->cellxgene, "files of CELLxGENE: human, primary data only, texts from the default template");
  command.add_option("--obs", flags->columns, "a further column of obs to keep, e.g. donor_id for holdout_by").once_each().type_name("KEY");
  command.add_option("--max-genes", flags->max_genes, "most genes of a cell").range(1, 65535).capture_default_str();
  command.add_flag("--allow-missing", flags->allow_missing, "keep cells whose label has no text, without one");
  command.add_flag("--keep-duplicates", flags->keep_duplicates, "keep cells with equal counts");
  command.add_option("--model", flags->model, "without files of counts: show the ids this model's text tower reads").type_name("DIR");
  command.add_flag("--overwrite", flags->overwrite, "replace an existing corpus");
  add_counts_flags(command, flags->counts);
  add_common_options(command, flags->common);
  command.callback([flags] { run_tokenize(*flags); });
}

}  // namespace lc
