// The operators as callers see them: the fusions that matter. Sizes: T tokens, C width, K in, N out, V vocabulary, P projection.
// Each throws ShapeError ("word: wanted …, got …"); each records itself when an input needs a gradient.
#pragma once
#include "engine/packing.h"
#include "engine/tensor.h"

namespace lc {

using kernels::Activation;
using kernels::SamePairs;

// pointwise: x + y, both (T, C) of one type
Tensor add(const Tensor& x, const Tensor& y);

// matmul: activation(x wᵀ + b); x (T, K), w (N, K), b (N) float or absent → (T, N)
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b, Activation activation = Activation::none);

// norm (Ba et al. 2016, post-LN block): LayerNorm(residual + dropout(x + bias)) · weight + shift
struct ResidualNorm {
  Tensor x, residual;          // (T, C); residual may be absent
  Tensor bias, weight, shift;  // (C) float; bias may be absent
  float eps = 1e-12f;
  Dropout dropout{};
  PackingPtr packing{};  // needed for dropout only
};
Tensor residual_norm(const ResidualNorm& arguments);
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& shift, float eps = 1e-12f);

// norm: rows to unit length; x (T, P) → (T, P) float
Tensor l2_normalize(const Tensor& x);

// attention: softmax(q kᵀ / √D) v; q (Tq, H·D), k and v (Tk, H·D) → (Tq, H·D); D 32, 64 or 128
struct Attention {
  Tensor q, k, v;
  int heads = 1;
  PackingPtr queries, keys;  // the same one for self-attention
  Dropout dropout{};
};
Tensor attention(const Attention& arguments);

// rows: x (T, C), index (n) i32 → (n, C)
Tensor rows_take(const Tensor& x, const Tensor& index);
// rows: x with rows[i] added to row index[i]; x (T, C), rows (n, C)
Tensor rows_add(const Tensor& x, const Tensor& rows, const Tensor& index);

// rank_embedding: dropout(LayerNorm(table[id] + positions[place in its sequence] + type)) → (T, C) of the table's type
struct Embed {
  Tensor ids;    // (T) i32
  Tensor by_id;  // (T) i32 rows in ascending order of (id, row); needed only for the gradient
  PackingPtr packing;
  Tensor table, positions;  // (V, C), (P, C)
  Tensor type;              // (types, C), row 0 is added; or absent
  Tensor weight, shift;     // (C) float
  float eps = 1e-12f;
  Dropout dropout{};
};
Tensor embed(const Embed& arguments);

// infonce: symmetric contrastive loss, summed over the pairs; a, b (N, P), scale (1) = 1/τ → (1) float
struct ContrastGroups {
  std::vector<std::int32_t> group;  // (N) any numbers; equal ones are one group. Empty: every pair its own
  std::vector<std::uint8_t>
      unrelated{};  // (G, G) in the order in which groups first appear, 0: leaves the denominator; empty: all negatives
  SamePairs same = SamePairs::positive;
};
Tensor infonce(const Tensor& a, const Tensor& b, const Tensor& scale, const ContrastGroups& groups = {});
double target_entropy(const ContrastGroups& groups,
                      std::int64_t pairs);  // Σ over pairs, averaged over the two directions: what a perfect model's loss would be

// matching_head: softmax cross-entropy of the linear head on the given rows, summed; x (T, C), rows (N) i32, weight (2, C), bias (2),
// labels (N) i32 → (1) float
struct MatchingHead {
  Tensor x, rows, weight, bias, labels;
};
Tensor matching_head(const MatchingHead& arguments);
Tensor matching_logits(const MatchingHead& arguments);  // (N, 2) float; labels are not read; not differentiable

// cross_entropy: of x tableᵀ + bias at the labels, summed; x (M, C), table (≥ V, C), bias (V) float, labels (M) i32 → (1) float
Tensor cross_entropy(const Tensor& x, const Tensor& table, const Tensor& bias, const Tensor& labels);

}  // namespace lc
