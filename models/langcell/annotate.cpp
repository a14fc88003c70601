#include "models/langcell/annotate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "models/langcell/data/batches.h"

namespace lc {
namespace {

constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();

// A GPU wants enough to fill it many times over; a CPU what stays near its caches.
std::int64_t tokens_at_once(std::int64_t wanted, const Queue& queue) {
  if (wanted > 0) return wanted;
  return queue.device == Device::cuda ? 65536 : 16384;
}

// Cells by length, cut into packings of a bounded number of tokens: f(packed tokens, which cells).
void for_each_packing(std::span<const TokenList> cells, std::int64_t tokens_per_batch, const Queue& queue,
                      const std::function<void(const Tokens&, std::span<const std::size_t>)>& f) {
  const std::int64_t budget = tokens_at_once(tokens_per_batch, queue);
  std::vector<std::size_t> order(cells.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return cells[a].size() > cells[b].size(); });
  for (std::size_t begin = 0; begin < order.size();) {
    Sequences packed;
    std::size_t end = begin;
    for (; end < order.size() && (end == begin || std::ssize(packed.ids) + std::ssize(cells[order[end]]) <= budget); ++end)
      packed.add(cells[order[end]], order[end]);
    f(upload(packed, Purpose::inference, queue), std::span(order).subspan(begin, end - begin));
    begin = end;
  }
}

void put_rows(const Tensor& rows, std::span<const std::size_t> which, std::vector<float>& out) {
  const std::vector<float> values = rows.to(DType::f32).to_host<float>();
  const auto width = static_cast<std::size_t>(rows.columns());
  for (std::size_t i = 0; i < which.size(); ++i)
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(i * width), width,
                out.begin() + static_cast<std::ptrdiff_t>(which[i] * width));
}

std::vector<double> softmax(const std::vector<double>& x) {
  const double top = *std::max_element(x.begin(), x.end());
  std::vector<double> p(x.size());
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += p[i] = std::exp(x[i] - top);
  for (double& v : p) v /= sum;
  return p;
}

}  // namespace

std::vector<double> combine_scores(std::span<const float> similarity, std::span<const float> match, const AnnotateOptions& options) {
  std::vector<double> a(similarity.size()), b;
  for (std::size_t k = 0; k < a.size(); ++k) a[k] = static_cast<double>(similarity[k]) / options.temperature;
  a = softmax(a);
  std::vector<std::size_t> matched;
  for (std::size_t k = 0; k < match.size(); ++k) {
    if (std::isnan(match[k])) continue;
    matched.push_back(k);
    b.push_back(match[k]);
  }
  if (!b.empty()) b = softmax(b);
  std::vector<double> score(a.size());
  for (std::size_t k = 0; k < a.size(); ++k) score[k] = static_cast<double>(options.alpha) * a[k];
  for (std::size_t i = 0; i < matched.size(); ++i) score[matched[i]] += (1 - static_cast<double>(options.alpha)) * b[i];
  return score;
}

Annotator::Annotator(const LangCell& model, std::vector<std::vector<TokenList>> label_texts, const AnnotateOptions& options)
    : model_(model), options_(options), labels_(std::ssize(label_texts)) {
  for (std::size_t label = 0; label < label_texts.size(); ++label) {
    for (TokenList& text : label_texts[label]) texts_.push_back(std::move(text)), label_of_.push_back(static_cast<std::int32_t>(label));
  }
  const auto projection = static_cast<std::size_t>(model.config().projection);
  z_.resize(texts_.size() * projection);
  for_each_packing(texts_, options.tokens_per_batch, model.parameters().queue(),
                   [&](const Tokens& tokens, std::span<const std::size_t> which) {
                     put_rows(model.text_embedding(model.encode_texts(tokens, {}), tokens), which, z_);
                   });
}

CellScores Annotator::operator()(std::span<const TokenList> cells) const {
  CellScores out;
  const auto n = cells.size(), labels = static_cast<std::size_t>(labels_),
             projection = static_cast<std::size_t>(model_.config().projection);
  out.cells = std::ssize(cells), out.labels = labels_, out.projection = model_.config().projection;
  out.z.resize(n * projection);
  out.similarity.assign(n * labels, 0), out.match.assign(n * labels, kMissing), out.odds.assign(n * labels, kMissing),
      out.score.resize(n * labels);
  std::vector<float> texts_of_label(labels, 0);
  for (const std::int32_t label : label_of_) ++texts_of_label[label];

  for_each_packing(cells, options_.tokens_per_batch, model_.parameters().queue(),
                   [&](const Tokens& tokens, std::span<const std::size_t> which) {
                     const Tensor hidden = model_.encode_cells(tokens, {});
                     put_rows(model_.cell_embedding(hidden, tokens), which, out.z);
                     for (const std::size_t cell : which) {
                       for (std::size_t t = 0; t < texts_.size(); ++t) {
                         double dot = 0;
                         for (std::size_t p = 0; p < projection; ++p)
                           dot += static_cast<double>(out.z[cell * projection + p]) * z_[t * projection + p];
                         out.similarity[cell * labels + label_of_[t]] += static_cast<float>(dot) / texts_of_label[label_of_[t]];
                       }
                     }
                     match_cells(hidden, tokens, which, out);
                   });
  for (std::size_t c = 0; c < n; ++c) {
    const auto score =
        combine_scores(std::span(out.similarity).subspan(c * labels, labels),
                       std::span(options_.score == ScoreKind::logit ? out.odds : out.match).subspan(c * labels, labels), options_);
    std::copy(score.begin(), score.end(), out.score.begin() + static_cast<std::ptrdiff_t>(c * labels));
  }
  return out;
}

// Keys and values of the cells once per layer; then all wanted (cell, text) pairs, a bounded number of text tokens at a time.
void Annotator::match_cells(const Tensor& hidden, const Tokens& tokens, std::span<const std::size_t> which, CellScores& out) const {
  const auto labels = static_cast<std::size_t>(labels_);
  const std::int64_t budget = tokens_at_once(options_.tokens_per_batch, model_.parameters().queue());
  const CrossStates states = model_.cross_states(hidden, tokens);
  std::vector<float> count(labels);
  for (const std::int32_t label : label_of_) ++count[label];

  Sequences pairs;
  std::vector<std::pair<std::size_t, std::size_t>> of;  // cell, label
  const auto flush = [&] {
    if (of.empty()) return;
    const Tokens packed = upload(pairs, Purpose::inference, model_.parameters().queue());
    const Linear& head = model_.matching_head();
    const auto logits = matching_logits({.x = model_.match_states(packed, states, {}),
                                         .rows = packed.packing->first_rows(),
                                         .weight = head.weight,
                                         .bias = head.bias,
                                         .labels = {}})
                            .to_host<float>();
    for (std::size_t i = 0; i < of.size(); ++i) {
      const double odds = static_cast<double>(logits[2 * i + 1]) - logits[2 * i], p = 1 / (1 + std::exp(-odds));
      const auto add = [&](std::vector<float>& to, double value) {
        float& place = to[of[i].first * labels + of[i].second];
        place = (std::isnan(place) ? 0 : place) + static_cast<float>(value) / count[of[i].second];
      };
      add(out.match, p), add(out.odds, odds);
    }
    pairs = {}, of.clear();
  };
  for (std::size_t i = 0; i < which.size(); ++i) {
    const std::size_t cell = which[i];
    std::vector<char> wanted(labels, 1);
    if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < labels) {
      std::vector<std::size_t> by_similarity(labels);
      std::iota(by_similarity.begin(), by_similarity.end(), 0);
      std::stable_sort(by_similarity.begin(), by_similarity.end(),
                       [&](std::size_t a, std::size_t b) { return out.similarity[cell * labels + a] > out.similarity[cell * labels + b]; });
      for (std::size_t k = static_cast<std::size_t>(options_.top_k); k < labels; ++k) wanted[by_similarity[k]] = 0;
    }
    for (std::size_t t = 0; t < texts_.size(); ++t) {
      if (!wanted[label_of_[t]]) continue;
      if (std::ssize(pairs.ids) + std::ssize(texts_[t]) > budget) flush();
      pairs.add(texts_[t], 0, static_cast<std::int32_t>(i));
      of.push_back({cell, static_cast<std::size_t>(label_of_[t])});
    }
  }
  flush();
}

CellScores embed_cells(const LangCell& model, std::span<const TokenList> cells, std::int64_t tokens_per_batch) {
  CellScores out;
  out.cells = std::ssize(cells), out.projection = model.config().projection;
  out.z.resize(cells.size() * static_cast<std::size_t>(out.projection)),
      out.cls.resize(cells.size() * static_cast<std::size_t>(model.config().cell.width));
  for_each_packing(cells, tokens_per_batch, model.parameters().queue(), [&](const Tokens& tokens, std::span<const std::size_t> which) {
    const Tensor hidden = model.encode_cells(tokens, {});
    if (out.projection > 0) put_rows(model.cell_embedding(hidden, tokens), which, out.z);
    put_rows(rows_take(hidden, tokens.packing->first_rows()), which, out.cls);
  });
  return out;
}

}  // namespace lc
