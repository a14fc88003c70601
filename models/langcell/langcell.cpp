#include "models/langcell/langcell.h"

#include "engine/errors.h"

namespace lc {

MgmHead::MgmHead(const Scope& scope, const TowerConfig& cell, Initialisation initialisation)
    : dense(scope.child("transform.dense"), cell.width, cell.width, deviation(initialisation, cell.width)),
      norm(scope.child("transform.LayerNorm"), cell.width, cell.eps),
      bias(declare(scope, {"bias"}, Shape{cell.vocabulary}, ParameterKind::vector, {})),
      activation(cell.activation) {
  adopt(dense), adopt(norm);
}

LangCell::LangCell(const LangCellConfig& config, const Parts& parts, DType storage, const Queue& queue) : config_(config) {
  require_valid(config_);
  const Scope root{&parameters_, ""};
  const Initialisation init = config_.initialisation;
  cell_.emplace(root.child("cell_bert"), config_.cell, init);
  if (parts.mgm_head == Part::required) mgm_.emplace(root.child("mgm_head"), config_.cell, init);
  if (config_.projection > 0)
    cell_proj_.emplace(root.child("cell_proj"), config_.cell.width, config_.projection, deviation(init, config_.cell.width));
  if (parts.text == Part::required && config_.text.layers > 0) {
    text_.emplace(root.child("text_bert"), config_.text, init);
    text_proj_.emplace(root.child("text_proj"), config_.text.width, config_.projection, deviation(init, config_.text.width));
    ctm_head_.emplace(root.child("ctm_head"), config_.text.width, 2, deviation(init, config_.text.width));
  }
  parameters_.allocate(storage, queue);
}

const Encoder& LangCell::text() const {
  if (!text_) throw ModelError("text_bert: this model has no text encoder; use a model folder with one");
  return *text_;
}

Tensor LangCell::encode_cells(const Tokens& cells, const PassOptions& options) const { return (*cell_)(cells, options); }
Tensor LangCell::encode_texts(const Tokens& texts, const PassOptions& options) const { return text()(texts, options); }

Tensor LangCell::cell_embedding(const Tensor& hidden, const Tokens& cells) const {
  if (!cell_proj_) throw ModelError("cell_proj: this model has no projection");
  return l2_normalize((*cell_proj_)(rows_take(hidden, cells.packing->first_rows())));
}

Tensor LangCell::text_embedding(const Tensor& hidden, const Tokens& texts) const {
  text();
  return l2_normalize((*text_proj_)(rows_take(hidden, texts.packing->first_rows())));
}

CrossStates LangCell::cross_states(const Tensor& cell_hidden, const Tokens& cells) const {
  return text().cross_states(cell_hidden, cells.packing);
}

Tensor LangCell::match_states(const Tokens& texts, const CrossStates& cells, const PassOptions& options) const {
  return text()(texts, options, &cells);
}

const Linear& LangCell::matching_head() const {
  text();
  return *ctm_head_;
}

Tensor LangCell::masked_gene_states(const Tensor& hidden, const Tensor& rows) const {
  if (!mgm_) throw ModelError("mgm_head: this model has no masked-gene head");
  return mgm_->norm(mgm_->dense(rows_take(hidden, rows), mgm_->activation));
}

}  // namespace lc
