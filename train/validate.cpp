#include "train/validate.h"

#include <algorithm>
#include <chrono>

#include "models/langcell/annotate.h"

namespace lc {
namespace {

// Means over batches, each loss over the batches in which it was active.
class Mean {
 public:
  void add(const std::optional<double>& x, double weight) {
    if (x) sum_ += *x * weight, weight_ += weight;
  }
  std::optional<double> value() const { return weight_ > 0 ? std::optional(sum_ / weight_) : std::nullopt; }

 private:
  double sum_ = 0, weight_ = 0;
};

std::ptrdiff_t argmax(const float* x, std::int64_t n) { return std::max_element(x, x + n) - x; }

// Each rank labels its share of the cells. Among many groups only the most similar are matched: the right one is seldom beyond them.
void label(const LangCell& model, const Dataset& data, Communicator& ranks, const StepRule& rule, const Samples& cells,
           ValidationRecord& record) {
  constexpr int kMatched = 32;
  std::vector<TokenList> sequences;
  std::vector<std::int32_t> truth;
  for (std::size_t i = static_cast<std::size_t>(ranks.rank()); i < cells.size(); i += static_cast<std::size_t>(ranks.size())) {
    if (data.group(cells[i]) < 0) continue;
    sequences.push_back(data.sequence(cells[i], rule.max_cell_tokens)), truth.push_back(data.group(cells[i]));
  }
  double recalled = 0, right = 0, all = static_cast<double>(truth.size());
  if (!sequences.empty()) {
    std::vector<std::vector<TokenList>> texts;
    for (std::int32_t g = 0; g < std::ssize(data.groups()); ++g) {
      auto& list = texts.emplace_back();
      for (const std::int32_t t : data.texts_of_group(g)) list.push_back(data.text_tokens(t));
    }
    AnnotateOptions options;
    options.temperature = rule.temperature, options.top_k = rule.matching > 0 ? kMatched : 1;
    const CellScores s = Annotator(model, texts, options)(sequences);
    for (std::size_t c = 0; c < truth.size(); ++c) {
      recalled += argmax(s.similarity.data() + static_cast<std::ptrdiff_t>(c) * s.labels, s.labels) == truth[c];
      right += argmax(s.score.data() + static_cast<std::ptrdiff_t>(c) * s.labels, s.labels) == truth[c];
    }
  }
  double sums[] = {recalled, right, all};
  ranks.all_reduce_sum(std::span<double>(sums));
  if (sums[2] == 0) return;
  record.recall_at_1 = sums[0] / sums[2];
  if (rule.matching > 0) record.zero_shot_accuracy = sums[1] / sums[2];
}

}  // namespace

ValidationRecord validate(LangCell& model, const Dataset& data, Communicator& ranks, const StepRule& rule, const ValidationSetup& setup) {
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t held = std::ssize(setup.cells), taken = std::min(held, setup.most_cells);
  Samples cells;  // of the whole holdout: files are sorted by donor or type
  for (std::int64_t i = 0; i < taken; ++i) cells.push_back(setup.cells[static_cast<std::size_t>(held * i / taken)]);
  ValidationRecord record;
  record.stage = static_cast<int>(rule.stage), record.cells = std::ssize(cells);
  Step step(model, data, ranks, rule);
  Mean loss, mgm, cell_cell, cell_text, matching;
  for (std::int64_t begin = 0; begin < std::ssize(cells); begin += setup.batch_size) {
    const std::int64_t end = std::min<std::int64_t>(std::ssize(cells), begin + setup.batch_size);
    const auto share_begin = [&](int r) { return cells.begin() + begin + (end - begin) * r / ranks.size(); };
    const Samples batch(share_begin(ranks.rank()), share_begin(ranks.rank() + 1));
    const StepResult r = step.run(static_cast<std::uint32_t>(begin / setup.batch_size), {batch}, 0, Update::losses_only);
    const auto weight = static_cast<double>(end - begin);
    loss.add(r.loss, weight), mgm.add(r.mgm, weight), cell_cell.add(r.cell_cell, weight), cell_text.add(r.cell_text, weight),
        matching.add(r.matching, weight);
  }
  record.losses = {loss.value().value_or(0), mgm.value(), cell_cell.value(), cell_text.value(), matching.value()};

  if (rule.cells_need_text()) label(model, data, ranks, rule, cells, record);
  record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return record;
}

}  // namespace lc
