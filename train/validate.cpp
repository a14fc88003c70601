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

}  // namespace

ValidationRecord validate(LangCell& model, const Dataset& data, Communicator& ranks, const StepRule& rule, const ValidationSetup& setup) {
  const auto start = std::chrono::steady_clock::now();
  Samples cells(setup.cells.begin(), setup.cells.begin() + std::min<std::ptrdiff_t>(std::ssize(setup.cells), setup.most_cells));
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

  std::vector<TokenList> sequences;
  std::vector<std::int32_t> truth;
  for (const std::int64_t cell : ranks.rank() == 0 ? cells : Samples()) {
    if (!rule.cells_need_text() || data.group(cell) < 0) continue;
    sequences.push_back(data.sequence(cell, rule.max_cell_tokens)), truth.push_back(data.group(cell));
  }
  if (!sequences.empty()) {
    std::vector<std::vector<TokenList>> texts;
    for (std::int32_t g = 0; g < std::ssize(data.groups()); ++g) {
      auto& list = texts.emplace_back();
      for (const std::int32_t t : data.texts_of_group(g)) list.push_back(data.text_tokens(t));
    }
    AnnotateOptions options;
    options.temperature = rule.temperature;
    const CellScores s = Annotator(model, texts, options)(sequences);
    double recalled = 0, right = 0;
    for (std::size_t c = 0; c < truth.size(); ++c) {
      recalled += argmax(s.similarity.data() + static_cast<std::ptrdiff_t>(c) * s.labels, s.labels) == truth[c];
      right += argmax(s.score.data() + static_cast<std::ptrdiff_t>(c) * s.labels, s.labels) == truth[c];
    }
    record.recall_at_1 = recalled / static_cast<double>(truth.size());
    if (rule.matching > 0) record.zero_shot_accuracy = right / static_cast<double>(truth.size());
  }
  record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return record;
}

}  // namespace lc
