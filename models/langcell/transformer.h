// A BERT encoder, post-LN (Vaswani et al. 2017; Devlin et al. 2019), over packed sequences, with BLIP's optional cross-attention block
// between self-attention and FFN (Li et al. 2022). Both towers are one of these.
#pragma once
#include <optional>
#include <vector>

#include "engine/nn.h"
#include "models/langcell/config.h"

namespace lc {

struct Tokens {  // what a tower reads
  Tensor ids;    // (T) i32
  Tensor by_id;  // (T) i32, rows by ascending id; absent in inference
  PackingPtr packing;
};

// How a pass runs: with which chance (absent: no dropout) and whether layers are recomputed in backward.
struct PassOptions {
  std::optional<PhiloxKey> chance{};
  enum class Activations : std::uint8_t { keep, recompute } activations = Activations::keep;
};

struct CrossStates {   // keys and values of every layer for the cells' tokens, computed once for all texts
  Tensor keys_values;  // (T cells, layers · 2 · width): layer by layer, keys then values
  PackingPtr packing;
};

class EncoderLayer : public Module {
 public:
  EncoderLayer(const Scope& scope, const TowerConfig& config, int number, Initialisation initialisation);
  // x (T, C); keys, values (T cells, C) absent outside matching mode
  Tensor operator()(const Tensor& x, const PackingPtr& packing, const Tensor& keys, const Tensor& values, const CrossStates* cross,
                    const PassOptions& options) const;

 private:
  Dropout dropout(float rate, int site, const PassOptions& options) const;
  TowerConfig config_;
  int number_ = 0;
  Linear query_key_value_, attention_output_, cross_query_, cross_output_, intermediate_, output_;
  LayerNorm attention_norm_, cross_norm_, output_norm_;
};

class Encoder : public Module {
 public:
  Encoder(const Scope& scope, const TowerConfig& config, Initialisation initialisation);
  // Last hidden states (T, C). With `cross`, matching mode: query sequence b reads the cell kv_of[b] of its packing.
  Tensor operator()(const Tokens& tokens, const PassOptions& options, const CrossStates* cross = nullptr) const;
  CrossStates cross_states(const Tensor& cell_hidden, const PackingPtr& cells) const;
  const TowerConfig& config() const { return config_; }
  const Parameter& word_embeddings() const { return words_.weight; }

 private:
  TowerConfig config_;
  Embedding words_, positions_, types_;
  LayerNorm norm_;
  std::vector<EncoderLayer> layers_;
  Linear cross_keys_values_;
};

}  // namespace lc
