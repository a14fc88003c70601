// LangCell (Zhao et al., ICML 2024): a cell encoder f, a text encoder g, projections to a common sphere, a matching head on g in matching
// mode, and a masked-gene head whose decoder is tied to the gene embeddings.
#pragma once
#include <memory>
#include <optional>

#include "models/langcell/transformer.h"

namespace lc {

struct MgmHead : Module {  // dense C→C, activation, LayerNorm; then the tied decoder + bias
  MgmHead(const Scope& scope, const TowerConfig& cell, Initialisation initialisation);
  Linear dense;
  LayerNorm norm;
  Parameter bias;  // (V)
  Activation activation;
};

class LangCell {
 public:
  enum class Part : std::uint8_t { required, absent };
  struct Parts {  // what the model is made of; absent parts cost no memory
    Part text = Part::required, mgm_head = Part::required;
  };
  LangCell(const LangCellConfig& config, const Parts& parts, DType storage, const Queue& queue = {});
  LangCell(const LangCell&) = delete;
  LangCell& operator=(const LangCell&) = delete;

  const LangCellConfig& config() const { return config_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  bool has_text() const { return text_.has_value(); }
  bool has_mgm_head() const { return mgm_.has_value(); }

  Tensor encode_cells(const Tokens& cells, const PassOptions& options) const;  // hidden states (T, C)
  Tensor encode_texts(const Tokens& texts, const PassOptions& options) const;  // text mode: (T, C)
  Tensor cell_embedding(const Tensor& hidden, const Tokens& cells) const;      // z (B, P), unit length, float
  Tensor text_embedding(const Tensor& hidden, const Tokens& texts) const;
  // Matching mode: text sequence b reads the cell kv_of[b] of its packing. States are computed once for all texts of the cells.
  CrossStates cross_states(const Tensor& cell_hidden, const Tokens& cells) const;
  Tensor match_states(const Tokens& texts, const CrossStates& cells,
                      const PassOptions& options) const;  // (T, C); position 0 goes to the head
  const Linear& matching_head() const;
  Tensor masked_gene_states(const Tensor& hidden, const Tensor& rows) const;  // (M, C) before the decoder
  const Parameter& gene_embeddings() const { return cell_->word_embeddings(); }
  const MgmHead& mgm_head() const { return *mgm_; }

 private:
  const Encoder& text() const;  // ModelError when there is none
  LangCellConfig config_;
  Parameters parameters_;
  std::optional<Encoder> cell_, text_;
  std::optional<Linear> cell_proj_, text_proj_, ctm_head_;
  std::optional<MgmHead> mgm_;
};

}  // namespace lc
