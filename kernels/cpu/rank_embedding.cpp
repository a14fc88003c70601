// rank_embedding: gather, LayerNorm and dropout of a row in one pass. Parameter gradients are sums over rows in fixed chunks;
// the table's runs over the rows sorted by id, because <mask> and <cls> have thousands of hits and most genes one.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd.h"
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rank_embedding.cpp"
#include <hwy/foreach_target.h>
// after foreach_target
#include "kernels/cpu/simd-inl.h"

#ifndef LC_KERNELS_CPU_RANK_EMBEDDING_ROOM
#define LC_KERNELS_CPU_RANK_EMBEDDING_ROOM
namespace lc::kernels {
struct EmbeddingRow;
// One row in float, then the bytes of its dropout.
inline float* embedding_room(std::int64_t columns) {
  return scratch<EmbeddingRow>(static_cast<std::size_t>(columns + (columns / 256 + 2) * 64));
}
}  // namespace lc::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::HWY_NAMESPACE {

// `sum` is the room for one row: the statistics are those of the float sum, as in residual_norm.
template <class T>
void embed_row(const RankEmbeddingForward<T>& f, std::int64_t t, const HiddenDropout& dropout, float* sum) {
  const std::int64_t columns = f.y.columns;
  const T* word = f.table.row(f.ids[t]);
  const T* position = f.positions.row(t - f.packing.offsets[f.packing.sequence_of[t]]);
  T *y = f.y.row(t), *kept = f.sum.data != nullptr ? f.sum.row(t) : nullptr;
  V total = hn::Zero(F()), squares = hn::Zero(F());
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    V x = hn::Add(load(word + c, n), load(position + c, n));
    if (f.type != nullptr) x = hn::Add(x, load(f.type + c, n));
    if (kept != nullptr) store(x, kept + c, n);
    store(x, sum + c, n);
    total = hn::Add(total, x);
  });
  const float mean = sum_of_lanes(total) / static_cast<float>(columns);
  const V center = hn::Set(F(), mean);
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V d = only_first(hn::Sub(load(sum + c, n), center), n);
    squares = hn::MulAdd(d, d, squares);
  });
  const float inverse = 1.0f / std::sqrt(sum_of_lanes(squares) / static_cast<float>(columns) + f.norm.eps);
  if (f.statistics != nullptr) f.statistics[2 * t] = mean, f.statistics[2 * t + 1] = inverse;
  const V scale = hn::Set(F(), inverse);
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V normal = hn::Mul(hn::Sub(load(sum + c, n), center), scale);
    const V out = hn::MulAdd(normal, load(f.norm.weight + c, n), load(f.norm.shift + c, n));
    store(dropout ? dropout(out, c) : out, y + c, n);
  });
}

template <class T>
void embed_rows(const RankEmbeddingForward<T>& f, std::int64_t begin, std::int64_t end) {
  float* sum = embedding_room(f.y.columns);
  HiddenDropout dropout(f.dropout, f.packing, f.y.columns, sum + f.y.columns);
  for (std::int64_t t = begin; t < end; ++t) {
    if (dropout) dropout.next_row(t);
    embed_row(f, t, dropout, sum);
  }
}
void embed_rows_f32(const RankEmbeddingForward<float>& f, std::int64_t begin, std::int64_t end) { embed_rows(f, begin, end); }
void embed_rows_bf16(const RankEmbeddingForward<bf16>& f, std::int64_t begin, std::int64_t end) { embed_rows(f, begin, end); }

// Where one chunk of rows puts its share of the vector gradients, (C) each.
struct EmbedShares {
  float *dweight, *dshift, *dtype;
};

// dsum (C) of one row, through dropout and LayerNorm.
template <class T>
void embed_row_backward(const RankEmbeddingBackward<T>& b, std::int64_t t, const HiddenDropout& dropout, float* dsum, EmbedShares to) {
  const std::int64_t columns = b.dy.columns;
  const T *dy = b.dy.row(t), *sum = b.sum.row(t);
  const V center = hn::Set(F(), b.statistics[2 * t]), scale = hn::Set(F(), b.statistics[2 * t + 1]);
  V total = hn::Zero(F()), along = hn::Zero(F());
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    V g = load(dy + c, n);
    if (dropout) g = dropout(g, c);
    const V normal = hn::Mul(hn::Sub(load(sum + c, n), center), scale), weighted = hn::Mul(g, load(b.norm.weight + c, n));
    total = hn::Add(total, weighted);
    along = hn::MulAdd(weighted, normal, along);
    store(weighted, dsum + c, n);
    store(hn::MulAdd(g, normal, load(to.dweight + c, n)), to.dweight + c, n);
    store(g, to.dshift + c, n, Into::add);
  });
  const V mean = hn::Set(F(), sum_of_lanes(total) / static_cast<float>(columns)),
          mean_along = hn::Set(F(), sum_of_lanes(along) / static_cast<float>(columns));
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V normal = hn::Mul(hn::Sub(load(sum + c, n), center), scale);
    const V d = hn::Mul(scale, hn::NegMulAdd(normal, mean_along, hn::Sub(load(dsum + c, n), mean)));
    store(d, dsum + c, n);
    store(d, to.dtype + c, n, Into::add);
  });
}

template <class T>
void embed_rows_backward(const RankEmbeddingBackward<T>& b, std::int64_t begin, std::int64_t end, float* shares) {
  const std::int64_t columns = b.dy.columns;
  HiddenDropout dropout(b.dropout, b.packing, columns, embedding_room(columns) + columns);
  std::fill_n(shares, 3 * columns, 0.0f);
  for (std::int64_t t = begin; t < end; ++t) {
    if (dropout) dropout.next_row(t);
    embed_row_backward(b, t, dropout, b.workspace + t * columns, {shares, shares + columns, shares + 2 * columns});
  }
}
void embed_rows_backward_f32(const RankEmbeddingBackward<float>& b, std::int64_t begin, std::int64_t end, float* shares) {
  embed_rows_backward(b, begin, end, shares);
}
void embed_rows_backward_bf16(const RankEmbeddingBackward<bf16>& b, std::int64_t begin, std::int64_t end, float* shares) {
  embed_rows_backward(b, begin, end, shares);
}

void embed_add_row(float* to, const float* from, std::int64_t columns) {
  for_columns(columns, [=](std::int64_t c, std::int64_t n) HWY_ATTR { store(load(from + c, n), to + c, n, Into::add); });
}

}  // namespace lc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
namespace {
HWY_EXPORT(embed_rows_f32);
HWY_EXPORT(embed_rows_bf16);
HWY_EXPORT(embed_rows_backward_f32);
HWY_EXPORT(embed_rows_backward_bf16);
HWY_EXPORT(embed_add_row);

constexpr std::int64_t kRows = 128;      // per chunk, in the order of the batch and in the order of ids
constexpr std::int64_t kPositions = 16;  // per chunk

void add_row_to(float* to, const float* from, std::int64_t columns) { HWY_DYNAMIC_DISPATCH(embed_add_row)(to, from, columns); }

template <class T, class Run>
void forward(const RankEmbeddingForward<T>& f, Run run) {
  parallel_for(f.y.rows, kRows, [&](std::int64_t begin, std::int64_t end, std::int64_t) { run(f, begin, end); });
}

// Rows in the order of ids. An id belongs to the chunk in which its run begins; what later chunks hold of it waits in `carried` (chunks,
// C).
template <class T>
void table_gradient(const RankEmbeddingBackward<T>& b, float* carried) {
  const std::int64_t tokens = b.dy.rows, columns = b.dy.columns;
  const auto id_at = [&](std::int64_t sorted) { return b.ids[b.by_id[sorted]]; };
  parallel_for(tokens, kRows, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    float* const waiting = carried + chunk * columns;
    std::fill_n(waiting, columns, 0.0f);
    for (std::int64_t s = begin; s < end; ++s) {
      const bool began_before = begin > 0 && id_at(s) == id_at(begin - 1);
      add_row_to(began_before ? waiting : b.dtable + id_at(s) * columns, b.workspace + b.by_id[s] * columns, columns);
    }
  });
  for (std::int64_t chunk = 1; chunk * kRows < tokens; ++chunk) {
    const std::int32_t id = id_at(chunk * kRows);
    if (id == id_at(chunk * kRows - 1)) add_row_to(b.dtable + id * columns, carried + chunk * columns, columns);
  }
}

template <class T>
void position_gradient(const RankEmbeddingBackward<T>& b) {
  const std::int64_t columns = b.dy.columns;
  const std::int32_t* offsets = b.packing.offsets;
  parallel_for(b.packing.longest, kPositions, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t sequence = 0; sequence < b.packing.sequences; ++sequence) {
      const std::int64_t first = offsets[sequence], length = offsets[sequence + 1] - first;
      for (std::int64_t p = begin; p < std::min(end, length); ++p)
        add_row_to(b.dpositions + p * columns, b.workspace + (first + p) * columns, columns);
    }
  });
}

template <class T, class Run>
void backward(const RankEmbeddingBackward<T>& b, Run run) {
  const std::int64_t tokens = b.dy.rows, columns = b.dy.columns, chunks = chunks_of(tokens, kRows);
  float *const shares = b.workspace + tokens * columns, *const carried = shares + chunks * 3 * columns;
  parallel_for(tokens, kRows,
               [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) { run(b, begin, end, shares + chunk * 3 * columns); });
  float* const sums[] = {b.dweight, b.dshift, b.dtype};
  for (std::int64_t i = 0; i < 3 * chunks; ++i) {
    if (sums[i % 3] != nullptr) add_row_to(sums[i % 3], shares + i * columns, columns);
  }
  if (b.dtable != nullptr) table_gradient(b, carried);
  if (b.dpositions != nullptr) position_gradient(b);
}
}  // namespace

std::size_t rank_embedding_workspace(std::int64_t tokens, std::int64_t columns) {
  return static_cast<std::size_t>((tokens + 4 * chunks_of(tokens, kRows)) * columns);
}
template <>
void rank_embedding_forward<Device::cpu, float>(Queue, const RankEmbeddingForward<float>& f) {
  forward(f, HWY_DYNAMIC_DISPATCH(embed_rows_f32));
}
template <>
void rank_embedding_forward<Device::cpu, bf16>(Queue, const RankEmbeddingForward<bf16>& f) {
  forward(f, HWY_DYNAMIC_DISPATCH(embed_rows_bf16));
}
template <>
void rank_embedding_backward<Device::cpu, float>(Queue, const RankEmbeddingBackward<float>& b) {
  backward(b, HWY_DYNAMIC_DISPATCH(embed_rows_backward_f32));
}
template <>
void rank_embedding_backward<Device::cpu, bf16>(Queue, const RankEmbeddingBackward<bf16>& b) {
  backward(b, HWY_DYNAMIC_DISPATCH(embed_rows_backward_bf16));
}

}  // namespace lc::kernels
#endif
