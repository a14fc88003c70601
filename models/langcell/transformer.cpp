#include "models/langcell/transformer.h"

#include <fmt/format.h>

#include "engine/errors.h"
#include "engine/tape.h"

namespace lc {
namespace {

// Sites of chance within a tower: 0 is the embedding, each layer has eight.
enum Site { kAttention = 0, kAttentionOutput = 1, kCross = 2, kCrossOutput = 3, kOutput = 4 };
constexpr int kSitesPerLayer = 8;

}  // namespace

EncoderLayer::EncoderLayer(const Scope& scope, const TowerConfig& c, int number, Initialisation initialisation)
    : config_(c), number_(number) {
  const float by_width = deviation(initialisation, c.width), by_ffn = deviation(initialisation, c.ffn);
  const Scope attention = scope.child("attention"), cross = scope.child("crossattention");
  query_key_value_ = Linear(attention.child("self"), {"query", "key", "value"}, c.width, c.width, by_width);
  attention_output_ = Linear(attention.child("output.dense"), c.width, c.width, by_width);
  attention_norm_ = LayerNorm(attention.child("output.LayerNorm"), c.width, c.eps);
  if (c.cross_width) {
    cross_query_ = Linear(cross.child("self.query"), c.width, c.width, by_width);
    cross_output_ = Linear(cross.child("output.dense"), c.width, c.width, by_width);
    cross_norm_ = LayerNorm(cross.child("output.LayerNorm"), c.width, c.eps);
  }
  intermediate_ = Linear(scope.child("intermediate.dense"), c.width, c.ffn, by_width);
  output_ = Linear(scope.child("output.dense"), c.ffn, c.width, by_ffn);
  output_norm_ = LayerNorm(scope.child("output.LayerNorm"), c.width, c.eps);
  for (const Module* m : std::initializer_list<const Module*>{&query_key_value_, &attention_output_, &attention_norm_, &cross_query_,
                                                              &cross_output_, &cross_norm_, &intermediate_, &output_, &output_norm_})
    adopt(*m);
}

Dropout EncoderLayer::dropout(float rate, int site, const PassOptions& options) const {
  if (!options.chance) return {};
  return {rate, *options.chance, static_cast<std::uint32_t>(1 + number_ * kSitesPerLayer + site)};
}

Tensor EncoderLayer::operator()(const Tensor& x, const PackingPtr& packing, const Tensor& keys, const Tensor& values,
                                const CrossStates* cross, const PassOptions& options) const {
  const TowerConfig& c = config_;
  const auto add_and_norm = [&](const Linear& dense, const Tensor& branch, const Tensor& residual, const LayerNorm& norm, int site) {
    return residual_norm({.x = dense.without_bias(branch),
                          .residual = residual,
                          .bias = dense.bias,
                          .weight = norm.weight,
                          .shift = norm.bias,
                          .eps = norm.eps,
                          .dropout = dropout(c.hidden_dropout, site, options),
                          .packing = packing});
  };
  const Tensor qkv = query_key_value_(x);
  const Tensor context = attention({.q = qkv.slice_columns(0, c.width),
                                    .k = qkv.slice_columns(c.width, c.width),
                                    .v = qkv.slice_columns(std::int64_t{2} * c.width, c.width),
                                    .heads = c.heads,
                                    .queries = packing,
                                    .keys = packing,
                                    .dropout = dropout(c.attention_dropout, kAttention, options)});
  Tensor h = add_and_norm(attention_output_, context, x, attention_norm_, kAttentionOutput);
  if (cross) {
    const Tensor read = attention({.q = cross_query_(h),
                                   .k = keys,
                                   .v = values,
                                   .heads = c.heads,
                                   .queries = packing,
                                   .keys = cross->packing,
                                   .dropout = dropout(c.attention_dropout, kCross, options)});
    h = add_and_norm(cross_output_, read, h, cross_norm_, kCrossOutput);
  }
  return add_and_norm(output_, intermediate_(h, c.activation), h, output_norm_, kOutput);
}

Encoder::Encoder(const Scope& scope, const TowerConfig& c, Initialisation initialisation) : config_(c) {
  const Scope embeddings = scope.child("embeddings");
  words_ = Embedding(embeddings.child("word_embeddings"), c.vocabulary, c.width, 0.02f);
  positions_ = Embedding(embeddings.child("position_embeddings"), c.positions, c.width, 0.02f);
  if (c.types) types_ = Embedding(embeddings.child("token_type_embeddings"), c.types, c.width, 0.02f);
  norm_ = LayerNorm(embeddings.child("LayerNorm"), c.width, c.eps);
  for (int i = 0; i < c.layers; ++i) layers_.emplace_back(scope.child("encoder.layer", i), c, i, initialisation);
  if (c.cross_width) {
    std::vector<std::string> parts;
    for (int i = 0; i < c.layers; ++i) {
      for (const char* what : {"key", "value"}) parts.push_back(fmt::format("encoder.layer.{}.crossattention.self.{}", i, what));
    }
    cross_keys_values_ = Linear(scope, parts, c.cross_width, c.width, deviation(initialisation, c.cross_width));
  }
  for (const Module* m : std::initializer_list<const Module*>{&words_, &positions_, &types_, &norm_, &cross_keys_values_}) adopt(*m);
  for (const EncoderLayer& layer : layers_) adopt(layer);
}

CrossStates Encoder::cross_states(const Tensor& cell_hidden, const PackingPtr& cells) const {
  return {cross_keys_values_(cell_hidden), cells};
}

Tensor Encoder::operator()(const Tokens& tokens, const PassOptions& options, const CrossStates* cross) const {
  const TowerConfig& c = config_;
  if (tokens.packing->longest() > c.positions) {
    throw ModelError(fmt::format("encoder: wanted sequences of at most {} tokens, the positions this model was trained with, got {}",
                                 c.positions, tokens.packing->longest()));
  }
  Tensor x = embed({.ids = tokens.ids,
                    .by_id = tokens.by_id,
                    .packing = tokens.packing,
                    .table = words_.weight,
                    .positions = positions_.weight,
                    .type = c.types ? *types_.weight : Tensor(),
                    .weight = norm_.weight,
                    .shift = norm_.bias,
                    .eps = norm_.eps,
                    .dropout = options.chance ? Dropout{c.hidden_dropout, *options.chance, 0} : Dropout{}});
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const EncoderLayer& layer = layers_[i];
    std::vector<Tensor> in = {x};
    if (cross) {
      const std::int64_t at = static_cast<std::int64_t>(2 * i) * c.width;
      in.push_back(cross->keys_values.slice_columns(at, c.width));
      in.push_back(cross->keys_values.slice_columns(at + c.width, c.width));
    }
    const PackingPtr cells = cross ? cross->packing : nullptr;
    const auto segment = [&layer, options, packing = tokens.packing, cells](std::span<const Tensor> s) {
      const CrossStates there{{}, cells};
      return s.size() == 1 ? layer(s[0], packing, {}, {}, nullptr, options) : layer(s[0], packing, s[1], s[2], &there, options);
    };
    Tape* const tape = tape_of("encoder", in);
    x = tape && options.activations == PassOptions::Activations::recompute ? tape->recompute(in, layer.leaves(), segment) : segment(in);
  }
  return x;
}

}  // namespace lc
