// One pass over a file: the shared body of annotate and embed.
#include "tools/commands/cell_run.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "engine/errors.h"
#include "models/langcell/data/batches.h"
#include "models/langcell/data/cell_tokens.h"
#include "tools/commands/command.h"

namespace lc {
namespace {

constexpr std::uint64_t kCellsAtOnce = 512;
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

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

class Progress {
 public:
  Progress(std::uint64_t total, const std::function<void(const std::string&)>& say_it) : total_(total), say_(say_it) {}
  void at(std::uint64_t done) {
    const auto now = Clock::now();
    if (done == 0 || done >= total_ || (said_ && now - last_ < std::chrono::seconds(10))) return;
    const double seconds = std::chrono::duration<double>(now - start_).count(), rate = static_cast<double>(done) / seconds;
    say_(fmt::format("{} of {} cells, {:.0f} cells/s, about {:.0f} s left", done, total_, rate, static_cast<double>(total_ - done) / rate));
    last_ = now, said_ = true;
  }

 private:
  std::uint64_t total_;
  const std::function<void(const std::string&)>& say_;
  Clock::time_point start_ = Clock::now(), last_ = start_;
  bool said_ = false;
};

}  // namespace

CellRun run_cells(const LoadedModel& model, const CountMatrix& counts, const CellRunOptions& options) {
  const std::string& name = counts.path();
  for (const std::string& note : counts.notes()) options.say(fmt::format("{}: {}", name, note));
  for (const std::string& warning : counts.warnings()) warn(fmt::format("{}: {}", name, warning));
  CellRun run;
  run.counts_source = counts.source();
  std::vector<std::string> vocabulary;
  for (const Gene& gene : model.facts.genes.genes()) vocabulary.push_back(gene.ensembl_id);
  run.figures = coverage(counts, vocabulary);
  for (const std::string& line : run.figures.lines) options.say(fmt::format("{}: {}", name, line));
  for (const std::string& warning : run.figures.warnings) warn(fmt::format("{}: {}", name, warning));
  require(run.figures, options.low_coverage, name);

  std::optional<Annotator> annotator;
  if (options.texts) annotator.emplace(*model.model, text_tokens(model, *options.texts), options.annotate);
  const int max_tokens = model.config().max_cell_tokens;
  const CellTokenizer tokenizer(model.facts.genes, counts.gene_ids(),
                                max_tokens);  // one gene more than the model reads, to know who is cut
  options.say(fmt::format("{} cells{}; results take about {:.0f} MiB", counts.n_cells(),
                          options.texts ? fmt::format(" x {} texts", options.texts->labels.size()) : "",
                          static_cast<double>(counts.n_cells()) *
                              (model.config().projection +
                               (options.texts ? 4.0 * static_cast<double>(options.texts->labels.size()) : model.config().cell.width)) *
                              4 / 1048576.0));
  Progress progress(counts.n_cells(), options.say);
  counts.for_each_block(kCellsAtOnce, [&](const CsrBlock& block) {
    const CellTokens tokens = tokenizer.encode(block.view());
    std::vector<TokenList> cells;
    for (std::int64_t i = 0; i < tokens.cells(); ++i) {
      run.has_genes.push_back(!tokens.cell(i).empty());
      run.cut_cells += std::ssize(tokens.cell(i)) >= max_tokens;
      cells.push_back(cell_sequence(tokens.cell(i), model.facts.genes.cls(), max_tokens));
    }
    const CellScores part = annotator ? (*annotator)(cells) : embed_cells(*model.model, cells, options.annotate.tokens_per_batch);
    CellScores& all = run.scores;
    all.cells += part.cells, all.labels = part.labels, all.projection = part.projection;
    append(all.z, part.z), append(all.cls, part.cls), append(all.similarity, part.similarity), append(all.match, part.match),
        append(all.score, part.score);
    progress.at(static_cast<std::uint64_t>(all.cells));
  });
  if (run.cut_cells > 0)
    options.say(fmt::format("{} of {} cells have more genes than the {} tokens this model reads; their best are used", run.cut_cells,
                            run.scores.cells, max_tokens));
  return run;
}

Labels labels_of(const CellRun& run) {
  constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();
  const CellScores& s = run.scores;
  const auto n = static_cast<std::size_t>(s.cells), labels = static_cast<std::size_t>(s.labels);
  Labels out;
  for (auto* v : {&out.label, &out.final, &out.second}) v->assign(n, -1);
  for (auto* v : {&out.score, &out.margin, &out.similarity, &out.match, &out.entropy}) v->assign(n, kMissing);
  out.reason.assign(n, "ok");
  for (std::size_t c = 0; c < n; ++c) {
    if (!run.has_genes[c]) {
      out.reason[c] = "no_genes";
      continue;
    }
    const float *score = s.score.data() + c * labels, *match = s.match.data() + c * labels;
    std::size_t best = 0;
    for (std::size_t k = 1; k < labels; ++k) best = score[k] > score[best] ? k : best;  // ties to the earlier text
    out.similarity[c] = s.similarity[c * labels + best], out.match[c] = match[best];
    if (labels == 1) continue;
    std::size_t second = best == 0 ? 1 : 0;
    double entropy = 0;
    bool any = false;
    for (std::size_t k = 0; k < labels; ++k) {
      if (k != best && score[k] > score[second]) second = k;
      if (score[k] > 0) entropy -= static_cast<double>(score[k]) * std::log(static_cast<double>(score[k]));
      any = any || match[k] >= 0.5f;
    }
    out.label[c] = static_cast<std::int32_t>(best), out.second[c] = static_cast<std::int32_t>(second);
    out.score[c] = score[best], out.margin[c] = score[best] - score[second];
    out.entropy[c] = static_cast<float>(entropy / std::log(static_cast<double>(labels)));
    if (any)
      out.final[c] = static_cast<std::int32_t>(best);
    else
      out.reason[c] = "low_match";
  }
  return out;
}

}  // namespace lc
