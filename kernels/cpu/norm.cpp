// Residual + dropout + LayerNorm, forward and backward, and L2 normalisation: each row is read from memory once and stays in L1.
// Sums over rows (dγ, dβ, dbias) go through one partial per 64 rows, added in order: the number of threads changes no bit.
#include <cmath>
#include <cstring>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd.h"
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/norm.cpp"
#include <hwy/foreach_target.h>
// after foreach_target
#include "kernels/cpu/simd-inl.h"

#ifndef LC_KERNELS_CPU_NORM_ROOM
#define LC_KERNELS_CPU_NORM_ROOM
namespace lc::kernels {
struct NormRow;
// One row in float, then the bytes of its dropout.
inline float* norm_room(std::int64_t columns) { return scratch<NormRow>(static_cast<std::size_t>(columns + (columns / 256 + 2) * 64)); }
}  // namespace lc::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::HWY_NAMESPACE {

// s = residual + dropout(x + bias), as `sum` stores it whether it is wanted or not: statistics and backward then speak of the same
// numbers (a bf16 row of almost equal values would otherwise lose its gradient), and y has the same bits in inference. Returns the total.
template <class T>
float residual_sum_row(const ResidualNormForward<T>& a, std::int64_t row, HiddenDropout& dropout, float* s) {
  const T *x = a.x.row(row), *residual = a.residual.data ? a.residual.row(row) : nullptr;
  T* sum = a.sum.data ? a.sum.row(row) : nullptr;
  if (dropout) dropout.next_row(row);
  V total = hn::Zero(F());
  for_columns(a.x.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    V v = load(x + c, n);
    if (a.bias) v = hn::Add(v, load(a.bias + c, n));
    if (dropout) v = dropout(v, c);
    if (residual) v = hn::Add(v, load(residual + c, n));
    v = as_stored<T>(v);
    if (sum) store(v, sum + c, n);
    store(v, s + c, n);
    total = hn::Add(total, v);
  });
  return sum_of_lanes(total);
}

template <class T>
void residual_norm_forward_rows(const ResidualNormForward<T>& a, std::int64_t begin, std::int64_t end) {
  const std::int64_t columns = a.x.columns;
  float* s = norm_room(columns);
  HiddenDropout dropout(a.dropout, a.packing, columns, s + columns);
  for (std::int64_t row = begin; row < end; ++row) {
    const float mean = residual_sum_row(a, row, dropout, s) / static_cast<float>(columns);
    const V m = hn::Set(F(), mean);
    V squares = hn::Zero(F());
    for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
      const V v = only_first(hn::Sub(load(s + c, n), m), n);
      squares = hn::MulAdd(v, v, squares);
    });
    const float inverse = 1.0f / std::sqrt(sum_of_lanes(squares) / static_cast<float>(columns) + a.norm.eps);
    const V r = hn::Set(F(), inverse);
    T* y = a.y.row(row);
    for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
      const V hat = hn::Mul(hn::Sub(load(s + c, n), m), r);
      store(hn::MulAdd(hat, load(a.norm.weight + c, n), load(a.norm.shift + c, n)), y + c, n);
    });
    if (a.statistics) a.statistics[2 * row] = mean, a.statistics[2 * row + 1] = inverse;
  }
}

// ds = r (g − mean(g) − ŝ mean(g ŝ)), g = dy·γ;  dx = ds under the forward's mask. Partials: dγ, dβ, dbias of these rows.
template <class T>
void residual_norm_backward_rows(const ResidualNormBackward<T>& a, std::int64_t begin, std::int64_t end, float* partial) {
  const std::int64_t columns = a.dy.columns;
  float *dweight = partial, *dshift = partial + columns, *dbias = partial + 2 * columns;
  std::memset(partial, 0, static_cast<std::size_t>(3 * columns) * sizeof(float));
  HiddenDropout dropout(a.dropout, a.packing, columns, norm_room(columns) + columns);
  for (std::int64_t row = begin; row < end; ++row) {
    const T *dy = a.dy.row(row), *sum = a.sum.row(row);
    const V m = hn::Set(F(), a.statistics[2 * row]), r = hn::Set(F(), a.statistics[2 * row + 1]);
    V total = hn::Zero(F()), along = hn::Zero(F());
    for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
      const V d = load(dy + c, n), hat = hn::Mul(hn::Sub(load(sum + c, n), m), r), g = hn::Mul(d, load(a.norm.weight + c, n));
      total = hn::Add(total, g), along = hn::MulAdd(g, hat, along);
      store(hn::MulAdd(d, hat, load(dweight + c, n)), dweight + c, n);
      store(hn::Add(d, load(dshift + c, n)), dshift + c, n);
    });
    const V mean_g = hn::Set(F(), sum_of_lanes(total) / static_cast<float>(columns));
    const V mean_along = hn::Set(F(), sum_of_lanes(along) / static_cast<float>(columns));
    if (!a.dx && !a.dresidual && !a.dbias) continue;
    if (dropout) dropout.next_row(row);
    T *dx = a.dx ? a.dx.to.row(row) : nullptr, *dresidual = a.dresidual ? a.dresidual.to.row(row) : nullptr;
    for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
      const V hat = hn::Mul(hn::Sub(load(sum + c, n), m), r), g = hn::Mul(load(dy + c, n), load(a.norm.weight + c, n));
      V ds = hn::Mul(r, hn::Sub(hn::Sub(g, mean_g), hn::Mul(hat, mean_along)));
      if (dresidual) store(ds, dresidual + c, n, a.dresidual.into);
      if (dropout) ds = dropout(ds, c);
      if (dx) store(ds, dx + c, n, a.dx.into);
      if (a.dbias) store(hn::Add(ds, load(dbias + c, n)), dbias + c, n);
    });
  }
}

template <class T>
void l2_normalize_forward_rows(const L2NormalizeForward<T>& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = a.x.row(row);
    float* y = a.y.row(row);
    V squares = hn::Zero(F());
    for_columns(a.x.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
      const V v = load(x + c, n);
      squares = hn::MulAdd(v, v, squares);
    });
    const float inverse = 1.0f / std::max(std::sqrt(sum_of_lanes(squares)), 1e-12f);
    const V scale = hn::Set(F(), inverse);
    for_columns(a.x.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR { store(hn::Mul(load(x + c, n), scale), y + c, n); });
    if (a.inverse_norm) a.inverse_norm[row] = inverse;
  }
}

template <class T>
void l2_normalize_backward_rows(const L2NormalizeBackward<T>& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const float *dy = a.dy.row(row), *y = a.y.row(row);
    T* dx = a.dx.to.row(row);
    V dot = hn::Zero(F());
    for_columns(a.dy.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR { dot = hn::MulAdd(load(dy + c, n), load(y + c, n), dot); });
    const bool clamped = a.inverse_norm[row] >= 1e12f;  // then the norm is a constant
    const V along = hn::Set(F(), clamped ? 0.0f : sum_of_lanes(dot)), scale = hn::Set(F(), a.inverse_norm[row]);
    for_columns(a.dy.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
      store(hn::Mul(scale, hn::NegMulAdd(load(y + c, n), along, load(dy + c, n))), dx + c, n, a.dx.into);
    });
  }
}

// to[c] += Σ over chunks of partial[chunk][c], in order of the chunks.
void add_partials(const float* partial, std::int64_t chunks, std::int64_t stride, float* to, std::int64_t columns) {
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    V total = hn::Zero(F());
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total = hn::Add(total, load(partial + chunk * stride + c, n));
    store(total, to + c, n, Into::add);
  });
}

using std::int64_t;
void residual_norm_forward_f32(const ResidualNormForward<float>& a, int64_t b, int64_t e) { residual_norm_forward_rows(a, b, e); }
void residual_norm_forward_bf16(const ResidualNormForward<bf16>& a, int64_t b, int64_t e) { residual_norm_forward_rows(a, b, e); }
void residual_norm_backward_f32(const ResidualNormBackward<float>& a, int64_t b, int64_t e, float* partial) {
  residual_norm_backward_rows(a, b, e, partial);
}
void residual_norm_backward_bf16(const ResidualNormBackward<bf16>& a, int64_t b, int64_t e, float* partial) {
  residual_norm_backward_rows(a, b, e, partial);
}
void l2_normalize_forward_f32(const L2NormalizeForward<float>& a, int64_t b, int64_t e) { l2_normalize_forward_rows(a, b, e); }
void l2_normalize_forward_bf16(const L2NormalizeForward<bf16>& a, int64_t b, int64_t e) { l2_normalize_forward_rows(a, b, e); }
void l2_normalize_backward_f32(const L2NormalizeBackward<float>& a, int64_t b, int64_t e) { l2_normalize_backward_rows(a, b, e); }
void l2_normalize_backward_bf16(const L2NormalizeBackward<bf16>& a, int64_t b, int64_t e) { l2_normalize_backward_rows(a, b, e); }

}  // namespace lc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
namespace {
HWY_EXPORT(residual_norm_forward_f32);
HWY_EXPORT(residual_norm_forward_bf16);
HWY_EXPORT(residual_norm_backward_f32);
HWY_EXPORT(residual_norm_backward_bf16);
HWY_EXPORT(l2_normalize_forward_f32);
HWY_EXPORT(l2_normalize_forward_bf16);
HWY_EXPORT(l2_normalize_backward_f32);
HWY_EXPORT(l2_normalize_backward_bf16);
HWY_EXPORT(add_partials);

constexpr std::int64_t kRows = 64;  // per chunk, and per partial sum

template <class F, class Arguments>
void for_row_chunks(F rows_of, const Arguments& a, std::int64_t rows) {
  parallel_for(rows, kRows, [&](std::int64_t begin, std::int64_t end, std::int64_t) { rows_of(a, begin, end); });
}

template <class F, class T>
void backward_with(F rows_of, const ResidualNormBackward<T>& a) {
  const std::int64_t rows = a.dy.rows, columns = a.dy.columns;
  parallel_for(rows, kRows, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    rows_of(a, begin, end, a.workspace + chunk * 3 * columns);
  });
  float* const wanted[] = {a.dweight, a.dshift, a.dbias};
  const auto add = HWY_DYNAMIC_DISPATCH(add_partials);
  parallel_for(columns, 256, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (int i = 0; i < 3; ++i) {
      if (wanted[i]) add(a.workspace + i * columns + begin, chunks_of(rows, kRows), 3 * columns, wanted[i] + begin, end - begin);
    }
  });
}
}  // namespace

std::size_t residual_norm_workspace(std::int64_t tokens, std::int64_t columns) {
  return static_cast<std::size_t>(chunks_of(tokens, kRows) * 3 * columns);
}

template <>
void residual_norm_forward<Device::cpu, float>(Queue, const ResidualNormForward<float>& a) {
  for_row_chunks(HWY_DYNAMIC_DISPATCH(residual_norm_forward_f32), a, a.x.rows);
}
template <>
void residual_norm_forward<Device::cpu, bf16>(Queue, const ResidualNormForward<bf16>& a) {
  for_row_chunks(HWY_DYNAMIC_DISPATCH(residual_norm_forward_bf16), a, a.x.rows);
}
template <>
void residual_norm_backward<Device::cpu, float>(Queue, const ResidualNormBackward<float>& a) {
  backward_with(HWY_DYNAMIC_DISPATCH(residual_norm_backward_f32), a);
}
template <>
void residual_norm_backward<Device::cpu, bf16>(Queue, const ResidualNormBackward<bf16>& a) {
  backward_with(HWY_DYNAMIC_DISPATCH(residual_norm_backward_bf16), a);
}
template <>
void l2_normalize_forward<Device::cpu, float>(Queue, const L2NormalizeForward<float>& a) {
  for_row_chunks(HWY_DYNAMIC_DISPATCH(l2_normalize_forward_f32), a, a.x.rows);
}
template <>
void l2_normalize_forward<Device::cpu, bf16>(Queue, const L2NormalizeForward<bf16>& a) {
  for_row_chunks(HWY_DYNAMIC_DISPATCH(l2_normalize_forward_bf16), a, a.x.rows);
}
template <>
void l2_normalize_backward<Device::cpu, float>(Queue, const L2NormalizeBackward<float>& a) {
  for_row_chunks(HWY_DYNAMIC_DISPATCH(l2_normalize_backward_f32), a, a.dy.rows);
}
template <>
void l2_normalize_backward<Device::cpu, bf16>(Queue, const L2NormalizeBackward<bf16>& a) {
  for_row_chunks(HWY_DYNAMIC_DISPATCH(l2_normalize_backward_bf16), a, a.dy.rows);
}

}  // namespace lc::kernels
#endif
