// The whole kernel library on one page: one argument struct per kernel, every field with its shape.
// B sequences, T tokens, C width, H heads, D head width, V vocabulary, N pairs. Memory is given, nothing is allocated for the caller to
// keep. T is the storage type (float or bf16); biases, LayerNorm parameters, statistics, losses and parameter gradients are always float.
// Zero rows and zero-length sequences are legal everywhere. Parameter gradients are added to; activation gradients say write or add.
// Kernels trust their arguments: shapes are checked once, in engine/ops.
#pragma once
#include "kernels/numeric.h"

namespace lc::kernels {

template <class T>
struct Rows {  // row i is data[i·stride … i·stride + columns)
  T* data = nullptr;
  std::int64_t rows = 0, columns = 0, stride = 0;
  constexpr T* row(std::int64_t i) const { return data + i * stride; }
  constexpr operator Rows<const T>() const { return {data, rows, columns, stride}; }
};

enum class Into : std::uint8_t { write, add };
template <class T>
struct Gradient {  // data null: not wanted
  Rows<T> to;
  Into into = Into::write;
  constexpr explicit operator bool() const { return to.data != nullptr; }
};

// Rows of a packing as attention on a device shares them out: 16 rows of a sequence each, those that read the same keys side by side and
// filled up to whole groups of eight, the longest first, so that what starts last is short. Null on the CPU.
struct alignas(16) Strip {
  std::int32_t sequence = -1, first_row = 0;  // −1: none
  std::int32_t token = 0, rows = 0;           // where they lie in the packing; up to 16 of them
};
struct RowBlocks {  // the same in blocks of more rows, each of one sequence, none empty, those with the most work first
  const Strip* all = nullptr;
  std::int64_t count = 0;
};
struct Strips {
  const Strip* all = nullptr;  // (count), count a multiple of 8
  std::int64_t count = 0;
  const std::int32_t* of_keys = nullptr;  // (K, 2) first and last + 1 of the strips that read key sequence k
  std::int64_t keys = 0;                  // K: further key sequences are read by nobody
};

// Sequences end to end; kv_of only for queries that read another sequence's keys (null: sequence b reads key sequence b).
struct PackingView {
  std::int64_t sequences = 0, tokens = 0, longest = 0;
  const std::int32_t* offsets = nullptr;             // (B+1)
  const std::int32_t* sequence_of = nullptr;         // (T)
  const std::uint64_t* keys = nullptr;               // (B) sequence keys for chance
  const std::int32_t* kv_of = nullptr;               // (B)
  Strips strips = {};                                // of_keys only where queries are seen through it
  RowBlocks blocks_of_128 = {}, blocks_of_192 = {};  // on CUDA only
};

// ---- pointwise
enum class Activation : std::uint8_t { none, relu, gelu };  // gelu: the erf form

template <class T>
struct ActivationBackward {
  Activation activation;
  Rows<const T> dy, kept;  // (T, C); kept: y for relu, the pre-activation for gelu
  Rows<T> dx;              // may be dy itself
};
template <Device D, class T>
void activation_backward(Queue, const ActivationBackward<T>&);

template <class T>
struct Sum {  // y = a + b
  Rows<const T> a, b;
  Rows<T> y;
};
template <Device D, class T>
void sum(Queue, const Sum<T>&);

template <class From, class To>
struct Convert {  // y = x, or y += x, through float
  Rows<const From> x;
  Rows<To> y;
  Into into = Into::write;
};
template <Device D, class From, class To>
void convert(Queue, const Convert<From, To>&);

// ---- matmul
template <class T>
struct LinearForward {          // y = activation(x wᵀ + bias)
  Rows<const T> x;              // (T, K)
  Rows<const T> w;              // (N, K)
  const float* bias = nullptr;  // (N) or null
  Activation activation = Activation::none;
  Rows<T> y;    // (T, N)
  Rows<T> pre;  // (T, N) pre-activation, or data null
};
template <class T>
struct LinearInputGradient {  // dx = dy w
  Rows<const T> dy;           // (T, N)
  Rows<const T> w;            // (N, K)
  Gradient<T> dx;             // (T, K)
};
template <class T>
struct LinearWeightGradient {  // dw += dyᵀ x, dbias += column sums of dy
  Rows<const T> dy;            // (T, N)
  Rows<const T> x;             // (T, K)
  float* dw = nullptr;         // (N, K) or null
  float* dbias = nullptr;      // (N) or null
};
template <Device D, class T>
void linear_forward(Queue, const LinearForward<T>&);
template <Device D, class T>
void linear_input_gradient(Queue, const LinearInputGradient<T>&);
template <Device D, class T>
void linear_weight_gradient(Queue, const LinearWeightGradient<T>&);

// ---- norm
struct NormParameters {
  const float *weight = nullptr, *shift = nullptr;  // (C)
  float eps = 1e-12f;
};
template <class T>
struct ResidualNormForward {    // sum = residual + dropout(x + bias); y = LayerNorm(sum)
  Rows<const T> x;              // (T, C)
  Rows<const T> residual;       // (T, C), or data null
  const float* bias = nullptr;  // (C) or null
  NormParameters norm;
  Dropout dropout;
  PackingView packing;          // rows to sequences, for dropout only
  Rows<T> sum;                  // (T, C), or data null when sum = x (no residual, bias, dropout) or nobody will ask
  float* statistics = nullptr;  // (T, 2) mean, 1/sqrt(variance + eps); or null
  Rows<T> y;                    // (T, C)
};
template <class T>
struct ResidualNormBackward {
  Rows<const T> dy, sum;              // (T, C)
  const float* statistics = nullptr;  // (T, 2)
  NormParameters norm;
  Dropout dropout;
  PackingView packing;
  Gradient<T> dx, dresidual;                                      // (T, C)
  float *dbias = nullptr, *dweight = nullptr, *dshift = nullptr;  // (C) or null
  float* workspace = nullptr;                                     // residual_norm_workspace(T, C) floats
};
std::size_t residual_norm_workspace(std::int64_t tokens, std::int64_t columns);
template <Device D, class T>
void residual_norm_forward(Queue, const ResidualNormForward<T>&);
template <Device D, class T>
void residual_norm_backward(Queue, const ResidualNormBackward<T>&);

template <class T>
struct L2NormalizeForward {       // y = x / max(‖x‖, 1e-12), as torch.nn.functional.normalize
  Rows<const T> x;                // (T, C)
  float* inverse_norm = nullptr;  // (T) or null
  Rows<float> y;                  // (T, C): z is kept in float
};
template <class T>
struct L2NormalizeBackward {
  Rows<const float> dy, y;
  const float* inverse_norm = nullptr;
  Gradient<T> dx;
};
template <Device D, class T>
void l2_normalize_forward(Queue, const L2NormalizeForward<T>&);
template <Device D, class T>
void l2_normalize_backward(Queue, const L2NormalizeBackward<T>&);

// ---- attention: softmax(q kᵀ · scale) v per head, one pass over the keys (Dao et al., FlashAttention); no score matrix is stored
template <class T>
struct AttentionForward {
  Rows<const T> q;     // (Tq, H·D)
  Rows<const T> k, v;  // (Tk, H·D)
  int heads = 1;       // D = 32, 64 or 128
  float scale = 1;
  PackingView queries, keys;
  Dropout dropout;       // of the weights; keyed by the query's sequence
  Rows<T> o;             // (Tq, H·D); a sequence without keys gives 0
  float* lse = nullptr;  // (H, Tq) natural log-sum-exp of the scaled scores, or null
};
template <class T>
struct AttentionBackward {
  Rows<const T> q, k, v, o, d_o;
  int heads = 1;
  float scale = 1;
  PackingView queries, keys;
  Dropout dropout;
  const float* lse = nullptr;
  Gradient<T> dq, dk, dv;
  float* workspace = nullptr;  // attention_workspace(H, Tq) floats
};
std::size_t attention_workspace(int heads, std::int64_t query_tokens);
template <Device D, class T>
void attention_forward(Queue, const AttentionForward<T>&);
template <Device D, class T>
void attention_backward(Queue, const AttentionBackward<T>&);

// ---- rows
template <class T>
struct RowsTake {                       // y[i] = x[index[i]]
  Rows<const T> x;                      // (T, C)
  const std::int32_t* index = nullptr;  // (n)
  Rows<T> y;                            // (n, C)
};
template <class T>
struct RowsAdd {                        // x[index[i]] += rows[i], in the order of i; Into::write clears x first
  Rows<const T> rows;                   // (n, C)
  const std::int32_t* index = nullptr;  // (n), repeats allowed
  Gradient<T> x;                        // (T, C)
};
template <Device D, class T>
void rows_take(Queue, const RowsTake<T>&);
template <Device D, class T>
void rows_add(Queue, const RowsAdd<T>&);

// ---- rank_embedding: y = dropout(LayerNorm(table[id] + positions[row in sequence] + type))
template <class T>
struct RankEmbeddingForward {
  const std::int32_t* ids = nullptr;  // (T)
  PackingView packing;
  Rows<const T> table;      // (V, C)
  Rows<const T> positions;  // (P, C), P ≥ longest
  const T* type = nullptr;  // (C) or null
  NormParameters norm;
  Dropout dropout;
  Rows<T> sum;                  // (T, C) before the norm, or data null
  float* statistics = nullptr;  // (T, 2) or null
  Rows<T> y;                    // (T, C)
};
template <class T>
struct RankEmbeddingBackward {
  const std::int32_t* ids = nullptr;    // (T)
  const std::int32_t* by_id = nullptr;  // (T) rows in ascending order of (id, row)
  PackingView packing;
  Rows<const T> dy, sum;  // (T, C)
  const float* statistics = nullptr;
  NormParameters norm;
  Dropout dropout;
  float *dtable = nullptr, *dpositions = nullptr;                 // (V, C), (P, C) or null
  float *dtype = nullptr, *dweight = nullptr, *dshift = nullptr;  // (C) or null
  float* workspace = nullptr;                                     // rank_embedding_workspace(T, C) floats
};
std::size_t rank_embedding_workspace(std::int64_t tokens, std::int64_t columns);
template <Device D, class T>
void rank_embedding_forward(Queue, const RankEmbeddingForward<T>&);
template <Device D, class T>
void rank_embedding_backward(Queue, const RankEmbeddingBackward<T>&);

// ---- infonce: symmetric contrastive loss over N pairs (a_i, b_i), tile by tile (van den Oord et al. 2018; tiles: Inf-CLIP)
// Scores s_ij = scale · a_i·b_j. Two directions, a→b and b→a, averaged with ½:  loss = ½ Σ_i [CE(a_i→b) + CE(b_i→a)]  (a sum over i, not a
// mean).
enum class SamePairs : std::uint8_t {
  positive,  // pairs of one group are positives of each other, target mass shared evenly
  merge,     // a→b is a softmax over the groups present (weight 1/size for each column), b→a shares targets over the group
  ignore     // pairs of one group off the diagonal leave the denominator, target = diagonal
};
struct InfoNceGroups {
  const std::int32_t* group = nullptr;  // (N) dense 0 … groups−1
  const std::int32_t* size = nullptr;   // (groups) how many pairs each has
  const std::uint8_t* unrelated =
      nullptr;  // (groups, groups) 1: negative, 0: leaves the denominator (the diagonal is not read); null: all negatives
  std::int32_t groups = 0;
  SamePairs same = SamePairs::positive;
};
template <class T>
struct InfoNceForward {
  Rows<const T> a, b;            // (N, P)
  const float* scale = nullptr;  // (1) 1/τ
  InfoNceGroups groups;
  float *lse_a = nullptr, *lse_b = nullptr;  // (N) log-sum-exp of the rows of each direction
  float* loss = nullptr;                     // (1)
};
template <class T>
struct InfoNceBackward {
  Rows<const T> a, b;
  const float* scale = nullptr;
  InfoNceGroups groups;
  const float *lse_a = nullptr, *lse_b = nullptr;
  const float* dloss = nullptr;  // (1)
  Gradient<T> da, db;            // (N, P)
  float* dscale = nullptr;       // (1) added to, or null
};
template <Device D, class T>
void infonce_forward(Queue, const InfoNceForward<T>&);
template <Device D, class T>
void infonce_backward(Queue, const InfoNceBackward<T>&);

// ---- matching_head: rows of x → linear to 2 → softmax → cross-entropy, summed over the pairs
template <class T>
struct MatchingHeadForward {
  Rows<const T> x;                       // (T, C)
  const std::int32_t* rows = nullptr;    // (N) the position-0 row of each pair, no repeats
  Rows<const T> weight;                  // (2, C)
  const float* bias = nullptr;           // (2)
  const std::int32_t* labels = nullptr;  // (N) 0 or 1; null: probabilities only
  std::int64_t pairs = 0;                // N
  float* logits = nullptr;               // (N, 2)
  float* loss = nullptr;                 // (1) or null
};
template <class T>
struct MatchingHeadBackward {
  Rows<const T> x;
  const std::int32_t *rows = nullptr, *labels = nullptr;
  Rows<const T> weight;
  std::int64_t pairs = 0;
  const float *logits = nullptr, *dloss = nullptr;  // (N, 2), (1)
  Gradient<T> dx;                                   // (T, C): rows not named get 0
  float *dweight = nullptr, *dbias = nullptr;       // (2, C), (2)
};
template <Device D, class T>
void matching_head_forward(Queue, const MatchingHeadForward<T>&);
template <Device D, class T>
void matching_head_backward(Queue, const MatchingHeadBackward<T>&);

// ---- cross_entropy of x · tableᵀ + bias at the labels, summed; logits live only in tiles of the vocabulary
template <class T>
struct CrossEntropyForward {
  Rows<const T> x;                       // (M, C) the masked positions
  Rows<const T> table;                   // (Vp, C), rows ≥ vocabulary are padding and count as −∞
  const float* bias = nullptr;           // (V)
  std::int64_t vocabulary = 0;           // V
  const std::int32_t* labels = nullptr;  // (M)
  float* lse = nullptr;                  // (M)
  float* loss = nullptr;                 // (1)
};
template <class T>
struct CrossEntropyBackward {
  Rows<const T> x, table;
  const float* bias = nullptr;
  std::int64_t vocabulary = 0;
  const std::int32_t* labels = nullptr;
  const float *lse = nullptr, *dloss = nullptr;  // (M), (1)
  Gradient<T> dx;                                // (M, C)
  float *dtable = nullptr, *dbias = nullptr;     // (Vp, C), (V), added to
};
template <Device D, class T>
void cross_entropy_forward(Queue, const CrossEntropyForward<T>&);
template <Device D, class T>
void cross_entropy_backward(Queue, const CrossEntropyBackward<T>&);

// ---- rank_encoding: counts to tokens (Theodoris et al. 2023): count / n_counts · 10⁴ in float, / median in double, descending
struct RankEncoding {
  std::int64_t cells = 0, nonzeros = 0, longest = 0;  // nonzeros: of all cells; longest: of the cell that has most
  const std::int64_t* indptr = nullptr;               // (cells+1) into columns and counts
  const std::int32_t* columns = nullptr;              // (nnz) matrix columns, any order, repeats allowed
  const float* counts = nullptr;                      // (nnz)
  const float* n_counts = nullptr;                    // (cells) sum over all columns, in double, rounded once
  const std::int32_t* token_of_column = nullptr;      // (matrix columns) token id, −1: not in the vocabulary
  const double* median_of_token = nullptr;            // (V)
  std::int64_t max_tokens = 0;                        // kept per cell
  std::int32_t* tokens = nullptr;                     // (cells, max_tokens)
  std::int32_t* lengths = nullptr;                    // (cells) written
};
template <Device D>
void rank_encoding(Queue, const RankEncoding&);

// ---- adamw (Loshchilov & Hutter 2019): p ← p·(1 − lr·decay) − lr·m̂/(√v̂ + eps), gradients scaled by min(1, clip/(norm + 1e-6))
struct Segment {  // a run of the arena under one rule; offsets and lengths in elements
  std::int64_t offset = 0, length = 0;
  float decay = 0;
  std::uint8_t frozen = 0;
};
template <class T>
struct AdamW {
  float *master = nullptr, *moment1 = nullptr, *moment2 = nullptr;  // the arena
  const float* gradient = nullptr;
  T* storage = nullptr;               // the copy the model computes with; null when it is the master itself
  const Segment* segments = nullptr;  // (n) on the host
  std::int64_t count = 0;
  const float* clip_factor = nullptr;  // (1), or null: 1; NaN: nothing is changed
  float lr = 0, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
  std::int64_t step = 1;  // from 1, for the bias correction
};
template <Device D, class T>
void adamw(Queue, const AdamW<T>&);

struct GradientNorm {  // norm = √Σ g² over the unfrozen segments (sums in double, fixed chunks); factor as above, 1 when clip = 0
  const float* gradient = nullptr;
  const Segment* segments = nullptr;
  std::int64_t count = 0;
  float clip = 1;
  float *norm = nullptr, *clip_factor = nullptr;  // (1), (1); a norm that is not finite gives a NaN factor
};
template <Device D>
void gradient_norm(Queue, const GradientNorm&);

}  // namespace lc::kernels
