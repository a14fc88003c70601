// The numbers of a model. The preset `langcell` is the published one (Zhao et al., ICML 2024), its cell tower Geneformer's
// (Theodoris et al. 2023), its text tower BERT-base (Devlin et al. 2019) with cross-attention as in BLIP (Li et al. 2022).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace lc {

struct TowerConfig {
  int layers = 0;  // 0: the model has no such tower
  int width = 0, heads = 0, ffn = 0;
  kernels::Activation activation = kernels::Activation::relu;
  float hidden_dropout = 0, attention_dropout = 0, eps = 1e-12f;
  int positions = 0;
  std::int64_t vocabulary = 0;
  int types = 0;        // rows of the token-type table (row 0 is added everywhere); 0: none
  int cross_width = 0;  // width of the states that cross-attention reads; 0: no cross-attention
};

enum class Initialisation : std::uint8_t { fixed, fan_in };  // linear layers: N(0, 0.02) or N(0, 1/√fan_in); embeddings always N(0, 0.02)
float deviation(Initialisation initialisation, int fan_in);  // of a linear layer's weights

struct LangCellConfig {
  std::string preset;
  TowerConfig cell, text;
  int projection = 0;  // 0: no contrastive heads
  Initialisation initialisation = Initialisation::fixed;
  int max_cell_tokens = 2048, max_text_tokens = 512;  // as trained: inference cuts there by default
};

const std::vector<std::string>& preset_names();
// Sizes of a preset for these vocabularies. UsageError naming the presets when there is none of that name.
LangCellConfig preset(const std::string& name, std::int64_t cell_vocabulary, std::int64_t text_vocabulary);
void require_valid(const LangCellConfig& config);  // ModelError: head widths 32/64/128, width = heads × head width, …

}  // namespace lc
