#include "tools/commands/cell_run.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "engine/errors.h"
#include "models/langcell/data/batches.h"
#include "tools/commands/command.h"
#include "tools/commands/results.h"
#include "train/stop.h"

namespace lc {
namespace {

constexpr std::uint64_t kCellsAtOnce = 512;
constexpr std::chrono::seconds kBetweenSyncs{15};
enum Part : std::size_t { kLabels = 0, kScores = 1, kZ = 2, kEmbedding = 0, kCls = 1 };  // of the spool, with and without labels
constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();
using Clock = std::chrono::steady_clock;

std::vector<std::vector<TokenList>> text_tokens(const LoadedModel& model, const Texts& texts) {
  if (!model.model->has_text()) throw ModelError("this model has no text tower; labels need one (train stage 2, or use embed)");
  std::vector<std::vector<TokenList>> tokens;
  std::vector<std::string> cut;
  for (const LabelTexts& label : texts.labels) {
    auto& list = tokens.emplace_back();
    for (const std::string& text : label.texts) {
      const EncodedText e = model.facts.word_piece.encode(text, model.config().max_text_tokens);
      if (e.pieces > std::ssize(e.ids)) cut.push_back(label.label);
      list.push_back(e.ids);
    }
  }
  if (!cut.empty())
    warn(fmt::format("{} texts are longer than the {} tokens this model reads and are cut there: {}", cut.size(),
                     model.config().max_text_tokens, fmt::join(cut, ", ")));
  if (const std::string unknown = unknown_warning(model.facts.word_piece, texts.all()); !unknown.empty()) warn(unknown);
  return tokens;
}

class CellProgress {
 public:
  CellProgress(std::uint64_t begin, std::uint64_t total, const std::function<void(const std::string&)>& say_it)
      : begin_(begin), total_(total), say_(say_it) {}
  void at(std::uint64_t done) {
    const auto now = Clock::now();
    if (done <= begin_ || done >= total_ || (said_ && now - last_ < std::chrono::seconds(10))) return;
    const double seconds = std::chrono::duration<double>(now - start_).count(), rate = static_cast<double>(done - begin_) / seconds;
    say_(fmt::format("{} of {} cells, {:.0f} cells/s, about {:.0f} s left", done, total_, rate, static_cast<double>(total_ - done) / rate));
    last_ = now, said_ = true;
  }

 private:
  std::uint64_t begin_, total_;
  const std::function<void(const std::string&)>& say_;
  Clock::time_point start_ = Clock::now(), last_ = start_;
  bool said_ = false;
};

// Of cell c of a block.
CellLabel label_of(const CellScores& s, std::size_t c, bool has_genes) {
  const auto labels = static_cast<std::size_t>(s.labels);
  CellLabel out;
  out.score = out.margin = out.similarity = out.match = out.entropy = kMissing;
  if (!has_genes) {
    out.reason = Reason::no_genes;
    return out;
  }
  const float *score = s.score.data() + c * labels, *match = s.match.data() + c * labels;
  std::size_t best = 0;
  for (std::size_t k = 1; k < labels; ++k) best = score[k] > score[best] ? k : best;  // ties to the earlier text
  out.similarity = s.similarity[c * labels + best], out.match = match[best];
  if (labels == 1) return out;
  std::size_t second = best == 0 ? 1 : 0;
  double entropy = 0;
  bool any = false;
  for (std::size_t k = 0; k < labels; ++k) {
    if (k != best && score[k] > score[second]) second = k;
    if (score[k] > 0) entropy -= static_cast<double>(score[k]) * std::log(static_cast<double>(score[k]));
    any = any || match[k] >= 0.5f;
  }
  out.label = static_cast<std::int32_t>(best), out.second = static_cast<std::int32_t>(second);
  out.score = score[best], out.margin = score[best] - score[second];
  out.entropy = static_cast<float>(entropy / std::log(static_cast<double>(labels)));
  if (any)
    out.final = static_cast<std::int32_t>(best);
  else
    out.reason = Reason::low_match;
  return out;
}

std::vector<SpoolPart> parts_of(Wanted wanted, std::uint64_t projection, std::uint64_t labels, std::uint64_t width) {
  if (wanted == Wanted::labels)
    return {{"labels", sizeof(CellLabel)}, {"scores", sizeof(float) * labels}, {"z", sizeof(float) * projection}};
  std::vector<SpoolPart> parts = {{"z", sizeof(float) * std::max<std::uint64_t>(projection, 1)}};
  if (wanted == Wanted::embeddings_and_cls) parts.push_back({"cls", sizeof(float) * width});
  return parts;
}

}  // namespace

const char* name_of(Reason reason) {
  switch (reason) {
    case Reason::ok:
      return "ok";
    case Reason::no_genes:
      return "no_genes";
    case Reason::low_match:
      return "low_match";
  }
  return "";
}

CellRun::CellRun(const LoadedModel& model, const CountMatrix& counts, const CellRunOptions& options)
    : model_(model), counts_(counts), options_(options), projection_(static_cast<std::uint64_t>(model.config().projection)) {
  const std::string& name = counts.path();
  for (const std::string& note : counts.notes()) options_.say(fmt::format("{}: {}", name, note));
  for (const std::string& warning : counts.warnings()) warn(fmt::format("{}: {}", name, warning));
  std::vector<std::string> vocabulary;
  for (const Gene& gene : model.facts.genes.genes()) vocabulary.push_back(gene.ensembl_id);
  figures_ = coverage(counts, vocabulary);
  for (const std::string& line : figures_.lines) options_.say(fmt::format("{}: {}", name, line));
  for (const std::string& warning : figures_.warnings) warn(fmt::format("{}: {}", name, warning));
  require(figures_, options_.low_coverage, name);
  if (options_.wanted == Wanted::labels) {
    annotator_.emplace(*model.model, text_tokens(model, *options_.texts), options_.annotate);
    labels_ = options_.texts->labels.size();
  }
  tokenizer_.emplace(model.facts.genes, counts.gene_ids(),
                     model.config().max_cell_tokens);  // one gene more than the model reads, to know who is cut
}

std::string CellRun::identity() const {
  std::string all = sha256_of_file(counts_file(counts_.path())) + model_.hash + options_.about + counts_.source();
  all += fmt::format(" {} cells", counts_.n_cells());
  for (const std::string& id : counts_.gene_ids()) all += '\n' + id;  // as names, maps and orthologs made them
  if (options_.texts)
    for (const LabelTexts& label : options_.texts->labels) {
      all += '\n' + label.label;
      for (const std::string& text : label.texts) all += '\t' + text;
    }
  return sha256_of(all);
}

CellScores CellRun::scores_of(std::uint64_t begin, std::uint64_t end, std::vector<char>& has_genes) {
  const int max_tokens = model_.config().max_cell_tokens;
  const CsrBlock block = counts_.read_rows(begin, end);
  const CellTokens tokens = tokenizer_->encode(block.view());
  std::vector<TokenList> cells;
  for (std::int64_t i = 0; i < tokens.cells(); ++i) {
    has_genes.push_back(!tokens.cell(i).empty());
    cut_cells_ += std::ssize(tokens.cell(i)) >= max_tokens;
    cells.push_back(cell_sequence(tokens.cell(i), model_.facts.genes.cls(), max_tokens));
  }
  return annotator_ ? (*annotator_)(cells) : embed_cells(*model_.model, cells, options_.annotate.tokens_per_batch);
}

void CellRun::keep(const CellScores& part, const std::vector<char>& has_genes) {
  const auto n = static_cast<std::uint64_t>(part.cells);
  if (options_.wanted != Wanted::labels) {
    if (projection_ > 0)
      spool_->append(kEmbedding, part.z.data(), n);
    else
      spool_->append(kEmbedding, std::vector<float>(n, 0.0f).data(), n);
    if (options_.wanted == Wanted::embeddings_and_cls) spool_->append(kCls, part.cls.data(), n);
    return;
  }
  std::vector<CellLabel> labels;
  std::vector<float> scores = part.score;
  for (std::uint64_t c = 0; c < n; ++c) {
    labels.push_back(label_of(part, c, has_genes[c]));
    if (!has_genes[c]) std::fill_n(scores.begin() + static_cast<std::ptrdiff_t>(c * labels_), labels_, kMissing);
  }
  spool_->append(kLabels, labels.data(), n), spool_->append(kScores, scores.data(), n), spool_->append(kZ, part.z.data(), n);
}

void CellRun::run() {
  const StopRequest listening;
  spool_ = std::make_unique<Spool>(options_.out, identity(),
                                   parts_of(options_.wanted, projection_, labels_, static_cast<std::uint64_t>(model_.config().cell.width)),
                                   options_.existing);
  if (options_.only_finish && spool_->done() != cells()) refuse_existing(options_.out);
  const std::uint64_t there =
      spool_->done() == cells() ? cells() : spool_->done() / kCellsAtOnce * kCellsAtOnce;  // whole blocks: equal batches
  spool_->begin_at(there);
  if (there > 0) options_.say(fmt::format("{} of {} cells are there from before; going on behind them", there, cells()));
  CellProgress progress(there, cells(), options_.say);
  auto synced = Clock::now();
  for (std::uint64_t begin = there; begin < cells(); begin += kCellsAtOnce) {
    if (StopRequest::asked()) {
      spool_->sync();
      throw Stopped(fmt::format("stopped by {} after {} of {} cells; the same command goes on from there", StopRequest::signal_name(),
                                begin, cells()));
    }
    std::vector<char> has_genes;
    const CellScores part = scores_of(begin, std::min(begin + kCellsAtOnce, cells()), has_genes);
    keep(part, has_genes);
    if (Clock::now() - synced > kBetweenSyncs) spool_->sync(), synced = Clock::now();
    progress.at(begin + static_cast<std::uint64_t>(part.cells));
  }
  counts_.require_unchanged();
  if (cut_cells_ > 0)
    options_.say(fmt::format("{} of {} cells have more genes than the {} tokens this model reads; their best are used", cut_cells_,
                             cells() - there, model_.config().max_cell_tokens));
}

void CellRun::estimate() {
  constexpr std::uint64_t kTimed = 256;
  const std::uint64_t n = std::min(kTimed, cells());
  std::vector<char> has_genes;
  (void)scores_of(0, std::min<std::uint64_t>(n, 16), has_genes);  // the first call prepares what later ones find
  const auto begin = Clock::now();
  (void)scores_of(0, n, has_genes);
  const double rate = static_cast<double>(n) / std::chrono::duration<double>(Clock::now() - begin).count();
  const double bytes = static_cast<double>(cells() * (sizeof(CellLabel) + sizeof(float) * (projection_ + labels_)));
  options_.say(fmt::format(
      "{} cells{}: about {:.0f} s at the {:.0f} cells/s of the first {}; results take {:.1f} MiB on disk beside the copy of the input",
      cells(), labels_ ? fmt::format(" x {} texts", labels_) : "", static_cast<double>(cells()) / rate, rate, n, bytes / 1048576));
}

std::vector<CellLabel> CellRun::labels() const {
  std::vector<CellLabel> all(cells());
  spool_->read(kLabels, 0, cells(), all.data());
  return all;
}
CellRun::Rows CellRun::rows_of(std::size_t part) const {
  return [spool = spool_.get(), part](std::uint64_t begin, std::uint64_t end, float* rows) { spool->read(part, begin, end, rows); };
}
CellRun::Rows CellRun::z() const { return rows_of(options_.wanted == Wanted::labels ? kZ : kEmbedding); }
CellRun::Rows CellRun::scores() const { return rows_of(kScores); }
CellRun::Rows CellRun::cls() const { return rows_of(kCls); }

}  // namespace lc
