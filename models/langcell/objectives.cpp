#include "models/langcell/objectives.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "engine/chance.h"
#include "engine/machine.h"
#include "engine/profile.h"
#include "engine/tape.h"

namespace lc {
namespace {

// Gumbel(0, 1) noise keyed on (step, anchor, candidate).
double gumbel(PhiloxKey chance, std::uint64_t anchor, std::uint64_t candidate) {
  const Philox r = draw(chance, anchor, candidate);
  return -std::log(-std::log((r.word[0] + 0.5) / 4294967296.0));
}

// The hard negatives: for each anchor one text and one cell of another group, drawn in proportion to exp(similarity / τ) (Gumbel-max).
// Where z is imagined, some text and some cell that are admissible.
class Negatives {
 public:
  Negatives(const ContrastBatch& batch, const ContrastOptions& options)
      : batch_(batch),
        options_(options),
        cells_(batch.view_a.to_host<float>()),
        texts_(batch.text.to_host<float>()),
        width_(batch.text.columns()) {
    group_of_text_.assign(static_cast<std::size_t>(batch.text.rows()), -1);
    for (std::size_t i = 0; i < batch.text_of.size(); ++i) {
      if (batch.text_of[i] >= 0) group_of_text_[batch.text_of[i]] = batch.group_of[i];
    }
  }
  std::int32_t text_for(std::size_t anchor) const {
    return best(
        anchor, group_of_text_.size(), [&](std::size_t t) { return tells_apart(batch_.group_of[anchor], group_of_text_[t]); },
        [&](std::size_t t) {
          return score(anchor, t) +
                 gumbel(options_.chance, sequence_key(Pass::pair_neg_text, batch_.samples[anchor]), batch_.text_owner[t]);
        });
  }
  std::int32_t cell_for(std::size_t anchor) const {
    const auto t = static_cast<std::size_t>(batch_.text_of[anchor]);
    return best(
        anchor, batch_.samples.size(),
        [&](std::size_t c) { return batch_.text_of[c] >= 0 && tells_apart(batch_.group_of[anchor], batch_.group_of[c]); },
        [&](std::size_t c) {
          return score(c, t) + gumbel(options_.chance, sequence_key(Pass::pair_neg_cell, batch_.samples[anchor]), batch_.samples[c]);
        });
  }

 private:
  bool tells_apart(std::int64_t group, std::int64_t other) const {
    return group != other && !(batch_.related && batch_.related(group, other));
  }
  double score(std::size_t cell, std::size_t text) const {
    double dot = 0;
    for (std::int64_t p = 0; p < width_; ++p) dot += static_cast<double>(cells_[cell * width_ + p]) * texts_[text * width_ + p];
    return dot * options_.scale;
  }
  template <class Admissible, class Value>
  std::int32_t best(std::size_t anchor, std::size_t n, Admissible admissible, Value value) const {
    if (batch_.text.queue().imagined()) {
      for (std::size_t i = 0, first = anchor * 7919 % n; i < n; ++i) {
        if (admissible((first + i) % n)) return static_cast<std::int32_t>((first + i) % n);
      }
      return -1;
    }
    std::int32_t found = -1;
    double top = -std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < n; ++i) {
      if (!admissible(i)) continue;
      if (const double v = value(i); v > top) top = v, found = static_cast<std::int32_t>(i);
    }
    return found;
  }
  const ContrastBatch& batch_;
  const ContrastOptions& options_;
  std::vector<float> cells_, texts_;
  std::int64_t width_;
  std::vector<std::int64_t> group_of_text_;
};

void draw_pairs(const ContrastBatch& batch, const ContrastOptions& options, Contrast& result) {
  const Negatives negatives(batch, options);
  const std::size_t n = batch.samples.size();
  const std::int64_t count = options.count < 0 ? static_cast<std::int64_t>(n) : options.count;
  std::vector<std::int64_t> drawn(2 * static_cast<std::size_t>(count), -1);  // a text and a cell for each anchor
  {
    const double scores = static_cast<double>(count) * static_cast<double>(n + static_cast<std::size_t>(batch.text.rows()));
    const Measured measured("negatives", batch.text.queue(), 0, 2 * scores * static_cast<double>(batch.text.columns()));
    parallel_for(count, 8, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto anchor = static_cast<std::size_t>(options.first + i);
        if (batch.text_of[anchor] < 0) continue;
        drawn[2 * i] = negatives.text_for(anchor), drawn[2 * i + 1] = negatives.cell_for(anchor);
      }
    });
  }
  if (options.gather) drawn = options.gather(drawn);
  for (std::size_t i = 0; i < n; ++i) {
    if (batch.text_of[i] < 0) continue;
    result.pairs.push_back({static_cast<std::int32_t>(i), batch.text_of[i], 1, sequence_key(Pass::pair_pos, batch.samples[i])});
    const auto text = static_cast<std::int32_t>(drawn[2 * i]), cell = static_cast<std::int32_t>(drawn[2 * i + 1]);
    if (text >= 0) result.pairs.push_back({static_cast<std::int32_t>(i), text, 0, sequence_key(Pass::pair_neg_text, batch.samples[i])});
    if (cell >= 0) result.pairs.push_back({cell, batch.text_of[i], 0, sequence_key(Pass::pair_neg_cell, batch.samples[i])});
    result.skipped_negatives += (text < 0) + (cell < 0);
  }
  std::stable_sort(result.pairs.begin(), result.pairs.end(), [](const MatchPair& a, const MatchPair& b) { return a.cell < b.cell; });
}

// (G, G) for ContrastGroups; empty where no group is related to another. `groups`: their numbers, in the order in which they appear.
std::vector<std::uint8_t> unrelated(const std::vector<std::int64_t>& groups, const ContrastBatch& batch) {
  if (!batch.related) return {};
  std::vector<std::uint8_t> matrix;
  bool any = false;
  for (const std::int64_t a : groups) {
    for (const std::int64_t b : groups) {
      const bool related = a != b && batch.related(a, b);
      matrix.push_back(!related), any = any || related;
    }
  }
  return any ? matrix : std::vector<std::uint8_t>();
}

Tensor watched(Tape& tape, const Tensor& z, const ContrastOptions& options) { return options.gradients ? tape.watch(z) : z; }
Tensor sum_of(const Tensor& a, const Tensor& b) { return !a ? b : !b ? a : add(a, b); }

}  // namespace

Tensor masked_gene_loss(const LangCell& model, const Tensor& hidden, const Tensor& rows, const Tensor& labels) {
  return cross_entropy(model.masked_gene_states(hidden, rows), model.gene_embeddings(), model.mgm_head().bias, labels);
}

Tensor matching_loss(const LangCell& model, const CrossStates& cells, const Tokens& texts, const Tensor& labels,
                     const PassOptions& options) {
  const Linear& head = model.matching_head();
  return matching_head({.x = model.match_states(texts, cells, options),
                        .rows = texts.packing->first_rows(),
                        .weight = head.weight,
                        .bias = head.bias,
                        .labels = labels});
}

Contrast contrast(const ContrastBatch& batch, const ContrastOptions& options) {
  Contrast result;
  if (batch.view_b && options.cell_cell > 0 && batch.view_a.rows() > 1) {
    Tape tape;
    const Queue& queue = batch.view_a.queue();
    const Tensor za = watched(tape, batch.view_a, options), zb = watched(tape, batch.view_b, options);
    const Tensor loss = infonce(za, zb, Tensor::scalar(options.scale, queue), {});
    result.cell_cell = loss.detached(), result.cell_cell_pairs = static_cast<double>(batch.view_a.rows());
    if (options.gradients) {
      tape.backward({{loss, Tensor::scalar(options.cell_cell / static_cast<float>(batch.view_a.rows()), queue)}});
      result.d_view_a = tape.gradient(za), result.d_view_b = tape.gradient(zb);
    }
  }
  if (!batch.text) return result;

  std::vector<std::int32_t> with_text, their_text;
  ContrastGroups groups{.group = {}, .unrelated = {}, .same = options.same_text};
  for (std::size_t i = 0; i < batch.text_of.size(); ++i) {
    if (batch.text_of[i] < 0) continue;
    with_text.push_back(static_cast<std::int32_t>(i)), their_text.push_back(batch.text_of[i]);
  }
  std::map<std::int64_t, std::int32_t> dense;
  std::vector<std::int64_t> in_order;
  for (const std::int32_t i : with_text) {
    const auto [at, fresh] = dense.emplace(batch.group_of[i], static_cast<std::int32_t>(dense.size()));
    if (fresh) in_order.push_back(at->first);
    groups.group.push_back(at->second);
  }
  result.one_group_only = dense.size() == 1;
  if (options.cell_text > 0 && dense.size() > 1) {
    groups.unrelated = unrelated(in_order, batch);
    Tape tape;
    const Queue& queue = batch.text.queue();
    const Tensor za = watched(tape, batch.view_a, options), zt = watched(tape, batch.text, options),
                 scale = Tensor::scalar(options.scale, queue);
    const Tensor loss =
        infonce(rows_take(za, Tensor::from(with_text, queue)), rows_take(zt, Tensor::from(their_text, queue)), scale, groups);
    const auto pairs = std::ssize(with_text);
    result.cell_text = loss.detached(), result.cell_text_pairs = static_cast<double>(pairs);
    result.cell_text_entropy = target_entropy(groups, pairs) / static_cast<double>(pairs);
    if (options.gradients) {
      tape.backward({{loss, Tensor::scalar(options.cell_text / static_cast<float>(pairs), queue)}});
      result.d_view_a = sum_of(result.d_view_a, tape.gradient(za)), result.d_text = tape.gradient(zt);
    }
  }
  if (options.matching > 0) draw_pairs(batch, options, result);
  return result;
}

}  // namespace lc
